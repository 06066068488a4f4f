// Links, targets, hand-over, counters: the message path between a reader and the outboxes.
//
// Synchronous from end to end. Never parses a payload, never awaits, never fails past a connection.
// A run of neighbouring messages of one type is one step, however many messages it holds.
// Order is kept for each target; between targets there is none.

import {
  DEFAULT_LINK_SETTINGS,
  formatTarget,
  type InstanceId,
  type LinkKey,
  type LinkSettings,
} from "./model.ts";
import type { Run } from "./message.ts";
import type { TypeName } from "./message/typename.ts";
import { TYPE_TABLE_SLOTS } from "./limits.ts";
import {
  type DropReason,
  LinkQueue,
  type OutboxPool,
  type Producer,
  type Target,
} from "./queue.ts";

/** One link with its accounts. */
export interface Link {
  readonly key: LinkKey;
  readonly target: Target;
  readonly queue: LinkQueue;
}

/** Where messages come from, with its accounts: received = routed to a link + unlinked + refused. */
export class Source implements Producer {
  /** The instance, or undefined for other orchestrators. */
  readonly id: InstanceId | undefined;
  received = 0;
  /** Messages whose type has no link from here. */
  unlinked = 0;
  /** Messages that were skipped because of their kind or form. */
  refused = 0;
  /** What the router found for this source; cleared when links change. */
  readonly routes: Map<TypeName, readonly Link[]> = new Map();
  version = -1;
  /** The types it has sent since it was started; of ever new ones, the first. */
  readonly #sent: Set<string> = new Set();
  /** Told when nothing may be read from it, and when it may again; other orchestrators cannot wait. */
  readonly #onWait: ((isWaiting: boolean) => void) | undefined;
  readonly #fullQueues: Set<LinkQueue> = new Set();

  constructor(id: InstanceId | undefined, onWait?: (isWaiting: boolean) => void) {
    this.id = id;
    this.#onWait = onWait;
  }

  /** Whether a queue with the policy `block` has no room for it. */
  get isHeld(): boolean {
    return this.#fullQueues.size > 0;
  }

  /** Whether it can wait for room in a queue. */
  get canWait(): boolean {
    return this.#onWait !== undefined;
  }

  /** A type is met for the first time since the routes were cleared. */
  note(type: TypeName): void {
    if (this.#sent.size < TYPE_TABLE_SLOTS) this.#sent.add(type.text);
  }

  /** Whether it has sent a message of this type since it was started. */
  hasSent(typeName: string): boolean {
    return this.#sent.has(typeName);
  }

  /** A new process of it has sent nothing yet. */
  restarted(): void {
    this.#sent.clear();
    this.routes.clear();
  }

  block(queue: LinkQueue): void {
    this.#fullQueues.add(queue);
    if (this.#fullQueues.size === 1) this.#onWait?.(true);
  }

  unblock(queue: LinkQueue): void {
    if (this.#fullQueues.delete(queue) && this.#fullQueues.size === 0) this.#onWait?.(false);
  }
}

/** Hears that messages of a link were dropped, and whose message it was that had no room, if any. */
export type OnDrop = (
  key: LinkKey,
  reason: DropReason,
  count: number,
  source: InstanceId | undefined,
) => void;

const NO_LINKS: readonly Link[] = [];

/** Routes runs of messages along links. Owns the links. */
export class Router {
  readonly #links: Map<string, Link[]> = new Map();
  readonly #touched: Target[] = [];
  /** Queues with the policy `block` that were pushed to in this turn, and by whom. */
  readonly #blocking: Map<LinkQueue, Source> = new Map();
  readonly #pool: OutboxPool | undefined;
  readonly #onDrop: OnDrop;
  #version = 0;
  #count = 0;
  /** Whose messages are being routed. */
  #source: InstanceId | undefined;

  /** `onDrop` hears of every drop, synchronously and often: it must be cheap and never throw. */
  constructor(onDrop: OnDrop = () => {}, pool?: OutboxPool) {
    this.#pool = pool;
    this.#onDrop = onDrop;
  }

  /** How many links there are. */
  get linkCount(): number {
    return this.#count;
  }

  /**
   * Adds a link that takes effect with the next message. One that exists keeps what it has, and
   * takes over the settings that are given. Returns whether it is new.
   */
  addLink(key: LinkKey, target: Target, settings: Partial<LinkSettings> = {}): boolean {
    const known = this.findLink(key)?.queue;
    if (known !== undefined) {
      known.settings = { ...known.settings, ...settings };
      known.letGo();
      return false;
    }
    const queue = new LinkQueue((reason, count) => this.#onDrop(key, reason, count, this.#source), {
      ...DEFAULT_LINK_SETTINGS,
      ...settings,
    });
    const links = this.#links.get(key.typeName) ?? [];
    this.#replace(key.typeName, [...links, { key, target, queue }]);
    return true;
  }

  findLink(key: LinkKey): Link | undefined {
    return this.#links.get(key.typeName)?.find((link) => isSameKey(link.key, key));
  }

  /** Removes a link and drops what is queued of it; false if there is none. */
  removeLink(key: LinkKey): boolean {
    const link = this.findLink(key);
    if (link === undefined) return false;
    link.target.forget(link.queue);
    link.queue.release();
    this.#pool?.leave(link.queue);
    const links = this.#links.get(key.typeName) ?? [];
    this.#replace(
      key.typeName,
      links.filter((other) => other !== link),
    );
    return true;
  }

  /** Removes every link from or to an instance, and returns their keys. */
  removeInstance(id: InstanceId): LinkKey[] {
    const keys = [...this.links()]
      .map((link) => link.key)
      .filter((key) => key.from === id || (key.to.kind === "instance" && key.to.id === id));
    for (const key of keys) this.removeLink(key);
    return keys;
  }

  /** All links, those of one type name together, in the order in which they were added. */
  *links(): Generator<Link> {
    for (const links of this.#links.values()) yield* links;
  }

  /** Hands a run to every link that takes it; `flush` follows when the chunk is done. */
  route(source: Source, run: Run): void {
    source.received += run.count;
    const links = this.#routes(source, run.type);
    if (links.length === 0) {
      source.unlinked += run.count;
      return;
    }
    this.#source = source.id;
    for (let i = 0; i < links.length; i++) {
      const { target, queue } = links[i] as Link;
      if (queue.settings.onFull === "block" && !this.#admit(source, queue, run)) continue;
      target.push(queue, run);
      if (!target.isTouched) {
        target.isTouched = true;
        this.#touched.push(target);
      }
    }
    this.#source = undefined;
  }

  /** Lets every target of this turn write what it was given. */
  flush(): void {
    for (const target of this.#touched) {
      target.isTouched = false;
      target.flush();
    }
    this.#touched.length = 0;
    if (this.#blocking.size === 0) return;
    for (const [queue, source] of this.#blocking) queue.holdBack(source);
    this.#blocking.clear();
  }

  /** A producer that can wait is held back later, if need be; one that cannot loses what has no room. */
  #admit(source: Source, queue: LinkQueue, run: Run): boolean {
    if (source.canWait) {
      this.#blocking.set(queue, source);
      return true;
    }
    if (queue.hasRoom(run.end - run.start, run.count)) return true;
    queue.routed += run.count;
    queue.drop("full", run.count);
    return false;
  }

  #routes(source: Source, type: TypeName): readonly Link[] {
    if (source.version !== this.#version || source.routes.size > TYPE_TABLE_SLOTS) {
      source.routes.clear();
      source.version = this.#version;
    }
    let links = source.routes.get(type);
    if (links === undefined) {
      source.note(type);
      links = this.#resolve(source.id, type.text);
      source.routes.set(type, links);
    }
    return links;
  }

  /** The links that take a message; of several to one target the one that names the source. */
  #resolve(from: InstanceId | undefined, typeName: string): readonly Link[] {
    const links = this.#links.get(typeName);
    if (links === undefined) return NO_LINKS;
    const named = links.filter(({ key }) => key.from !== undefined && key.from === from);
    const others = links.filter(
      ({ key, target }) => key.from === undefined && !named.some((link) => link.target === target),
    );
    return [...named, ...others];
  }

  #replace(typeName: string, links: Link[]): void {
    this.#count += links.length - (this.#links.get(typeName)?.length ?? 0);
    if (links.length === 0) this.#links.delete(typeName);
    else this.#links.set(typeName, links);
    this.#version++;
  }
}

function isSameKey(a: LinkKey, b: LinkKey): boolean {
  return (
    a.typeName === b.typeName && a.from === b.from && formatTarget(a.to) === formatTarget(b.to)
  );
}
