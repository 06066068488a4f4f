// The answer to `Info` as JSON: made of what every instance tells of itself, in pieces.

import type { Host } from "../host.ts";
import type { Instance } from "../instance.ts";
import { STATE_LOOK_MS } from "../limits.ts";
import type { PeerReceiver } from "../peer.ts";
import { JsonPieces } from "../protocol.ts";
import type { Info, LinkInfo } from "../protocol/info.ts";
import type { Store } from "../store.ts";
import { VERSION } from "../version.ts";
import type { TelemetryExporter } from "../telemetry.ts";

const HEAD = Buffer.from('{"runtimes":{');

/** What an answer tells of, besides instances and links. */
interface Subjects {
  readonly host: Pick<Host, "wallMs" | "now">;
  readonly telemetry: TelemetryExporter | undefined;
  readonly receiver: PeerReceiver;
  readonly store: Pick<Store, "file" | "lostFile">;
}

/** The answers of one orchestrator. */
export class InfoAnswers {
  readonly #of: Subjects;
  /** The members of the last answer, and all of them as one. */
  #members: readonly Buffer[] = [];
  #joined: Buffer = Buffer.alloc(0);
  #lostState: string | null = null;
  #nextLookMs = Number.NEGATIVE_INFINITY;

  constructor(of: Subjects) {
    this.#of = of;
  }

  encode(instances: readonly Instance[], routes: readonly LinkInfo[]): JsonPieces {
    const { host, telemetry, receiver, store } = this.#of;
    const epochMs = Math.round(host.wallMs() - host.now());
    const members = instances.map((instance) => instance.infoMember(epochMs));
    const links: Record<string, string[]> = {};
    for (const { type_name, to } of routes) {
      const targets = Object.hasOwn(links, type_name) ? links[type_name] : undefined;
      if (targets === undefined) define(links, type_name, [to]);
      else if (!targets.includes(to)) targets.push(to);
    }
    const others: Omit<Info, "runtimes"> = {
      links,
      routes,
      telemetry:
        telemetry === undefined
          ? null
          : { sent: telemetry.sent, dropped: telemetry.dropped, queued: telemetry.queued },
      peers: {
        received: receiver.source.received,
        unlinked: receiver.source.unlinked,
        refused: receiver.source.refused,
        strangers: receiver.strangers,
      },
      state: store.file ?? null,
      lost_state: this.#lookForState(),
      pid: process.pid,
      version: VERSION,
      time: Math.round(host.wallMs()),
    };
    const tail = Buffer.from(`},${JSON.stringify(others).slice(1)}`);
    return new JsonPieces([HEAD, this.#join(members), tail]);
  }

  /** Looks at most once a second: to ask the system for each answer would be felt. */
  #lookForState(): string | null {
    const { host, store } = this.#of;
    if (host.now() >= this.#nextLookMs) {
      this.#nextLookMs = host.now() + STATE_LOOK_MS;
      this.#lostState = store.lostFile ?? null;
    }
    return this.#lostState;
  }

  /**
   * Members of an object without the comma before the first. A thousand buffers take long to join, and
   * most instances are as they were at the last answer, and tell the same bytes.
   */
  #join(members: readonly Buffer[]): Buffer {
    const before = this.#members;
    if (before.length === members.length && members.every((member, i) => member === before[i])) {
      return this.#joined;
    }
    this.#members = members;
    this.#joined = Buffer.concat(members as Buffer[]).subarray(1);
    return this.#joined;
  }
}

/** Sets a key as data, whatever it is called; a plain assignment to `__proto__` would not. */
function define(object: Record<string, string[]>, key: string, value: string[]): void {
  Object.defineProperty(object, key, { value, enumerable: true, writable: true });
}
