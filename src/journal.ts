// What has happened, for those who ask later and those who watch: every change with its cause.
//
// Owns the followers and the losses that are not told yet; the events themselves are the store's.

import type { EventInfo } from "./protocol/info.ts";
import { NOTICE_INTERVAL_MS } from "./limits.ts";
import { formatTarget, type InstanceId, type LinkKey } from "./model.ts";
import type { EventQuery } from "./protocol.ts";

/** What happens to instances, links and the daemon. Normative in `docs/protocol.md`. */
export type EventKind =
  | "daemon_started"
  | "daemon_stopped"
  | "added"
  | "updated"
  | "uploaded"
  | "started"
  | "connected"
  | "disconnected"
  | "exited"
  | "restarting"
  | "failed"
  | "stopping"
  | "stopped"
  | "start_failed"
  | "stop_failed"
  | "swept"
  | "removed"
  | "linked"
  | "unlinked"
  | "dropped";

/** Whom an event is about. */
export interface Subject {
  readonly id: InstanceId;
  readonly name: string;
}

export type Detail = Readonly<Record<string, unknown>>;

/** Where events are kept. */
export interface EventStore {
  /** Returns the number of the event. */
  addEvent(event: Omit<EventInfo, "seq">): number;
  /** Oldest first. */
  events(query: EventPage): EventInfo[];
  /** The number before the first of these events; where there are none, of the newest of all. */
  seqBefore(query: EventPage): number;
}

/** Which events; with `first`, of these the oldest so many. */
export type EventPage = Partial<EventQuery> & { readonly first?: number };

interface Losses {
  count: number;
  /** The link that lost most since the last event, and why. */
  readonly links: Map<LinkKey, { count: number; reason: string }>;
}

/** The events of one daemon. */
export class Journal {
  readonly #store: EventStore;
  readonly #wallMs: () => number;
  readonly #after: (ms: number, action: () => void) => () => void;
  readonly #followers: Set<(event: EventInfo) => void> = new Set();
  #losses: Losses | undefined;

  /** `wallMs` is the wall clock, in ms since the epoch. */
  constructor(
    store: EventStore,
    wallMs: () => number,
    after: (ms: number, action: () => void) => () => void,
  ) {
    this.#store = store;
    this.#wallMs = wallMs;
    this.#after = after;
  }

  /** Keeps an event, and tells everybody who watches. */
  record(kind: EventKind, subject: Subject | undefined, detail: Detail = {}): void {
    const event = {
      time: Math.floor(this.#wallMs()),
      kind,
      id: subject?.id ?? null,
      name: subject?.name ?? null,
      detail,
    };
    const seq = this.#store.addEvent(event);
    for (const tell of this.#followers) tell({ seq, ...event });
  }

  /** Counts dropped messages, for at most one event a second. Cheap: this is the message path. */
  dropped(key: LinkKey, reason: string, count: number): void {
    if (this.#losses === undefined) {
      this.#losses = { count: 0, links: new Map() };
      this.#after(NOTICE_INTERVAL_MS, () => this.#tellLosses());
    }
    this.#losses.count += count;
    const link = this.#losses.links.get(key);
    if (link === undefined) this.#losses.links.set(key, { count, reason });
    else link.count += count;
  }

  /** The events that were asked for and have a greater number than `after`; the first so many. */
  read(query: EventPage, after: number, count: number): EventInfo[] {
    return this.#store.events({ ...query, after, first: count });
  }

  /** The number after which the events begin that were asked for. */
  seqBefore(query: EventPage): number {
    return this.#store.seqBefore(query);
  }

  /** Tells of every event from now on; the returned function ends that. */
  follow(tell: (event: EventInfo) => void): () => void {
    this.#followers.add(tell);
    return () => this.#followers.delete(tell);
  }

  #tellLosses(): void {
    const losses = this.#losses;
    this.#losses = undefined;
    if (losses === undefined) return;
    const [most] = [...losses.links].sort(([, a], [, b]) => b.count - a.count);
    if (most === undefined) return;
    const [{ typeName, from, to }, { count, reason }] = most;
    this.record("dropped", undefined, {
      count: losses.count,
      links: losses.links.size,
      most: { type_name: typeName, from: from ?? null, to: formatTarget(to), count, reason },
    });
  }
}
