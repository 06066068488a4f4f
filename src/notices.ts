// Who loses messages hears of it: at most one notice per second and link, to each end of the link.
//
// Counts drops between two notices; owns these counts and one timer per link that has any.

import { NOTICE_INTERVAL_MS } from "./limits.ts";
import { formatTarget, type InstanceId, type LinkKey } from "./model.ts";
import type { DropReason } from "./queue.ts";

/** The payload of a notice: so many messages of the link were dropped since the last one. */
export interface Notice {
  readonly count: number;
  readonly reason: DropReason;
  readonly from: InstanceId | null;
  readonly to: string;
}

interface Losses {
  readonly counts: Map<DropReason, number>;
  readonly producers: Set<InstanceId>;
}

/** Collects drops and sends notices. */
export class Notices {
  readonly #losses: Map<LinkKey, Losses> = new Map();
  readonly #send: (to: InstanceId, typeName: string, notice: Notice) => void;
  readonly #after: (ms: number, action: () => void) => () => void;

  constructor(
    send: (to: InstanceId, typeName: string, notice: Notice) => void,
    after: (ms: number, action: () => void) => () => void,
  ) {
    this.#send = send;
    this.#after = after;
  }

  /** Messages of a link were dropped; `producer` sent what had no room, if it was an instance. */
  add(key: LinkKey, reason: DropReason, count: number, producer: InstanceId | undefined): void {
    let losses = this.#losses.get(key);
    if (losses === undefined) {
      losses = { counts: new Map(), producers: new Set() };
      this.#losses.set(key, losses);
      const entered = losses;
      // Not at once: this is the message path, and the first second's count says more than a 1.
      this.#after(0, () => this.#tell(key, entered));
    }
    losses.counts.set(reason, (losses.counts.get(reason) ?? 0) + count);
    if (producer !== undefined && losses.producers.size < 16) losses.producers.add(producer);
  }

  /** Sends one notice, of the reason that cost most, and looks again after the interval. */
  #tell(key: LinkKey, losses: Losses): void {
    let most: [DropReason, number] | undefined;
    for (const entry of losses.counts) if (entry[1] > (most?.[1] ?? 0)) most = entry;
    if (most === undefined) {
      this.#losses.delete(key);
      return;
    }
    const [reason, count] = most;
    losses.counts.delete(reason);
    const { from, to, typeName } = key;
    const notice: Notice = { count, reason, from: from ?? null, to: formatTarget(to) };
    const ends = losses.producers;
    if (to.kind === "instance") ends.add(to.id);
    for (const id of ends) this.#send(id, typeName, notice);
    if (losses.counts.size === 0) losses.producers.clear();
    this.#after(NOTICE_INTERVAL_MS, () => this.#tell(key, losses));
  }
}
