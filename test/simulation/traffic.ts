// What must become of every message, in plain words: a model of links beside the router.
//
// It is told of each message right before the daemon reads it, and of each that the kernel took for an
// instance. Nothing of src/ is asked but the accounts of links, which are held against both.

import type { InstanceId, LinkSettings } from "../../src/model.ts";
import type { LinkInfo } from "../../src/protocol/info.ts";
import type { StoredLink } from "../../src/store/records.ts";
import { formatTarget } from "../../src/model.ts";
import { idOf } from "../support/registry.ts";
import type { Page } from "./ledger.ts";

/** The shortest message that is sent here, in the shorter dialect: a frame with an id and a number. */
const LEAST_BYTES = 8 + 1 + 36 + 2;

/** Whose name the messages of other orchestrators carry. */
export const PEER: InstanceId = idOf(0xffff);

/** One message, as its payload tells. */
export interface Sent {
  readonly from: InstanceId;
  readonly typeName: string;
  readonly seq: number;
}

interface LinkLife {
  routed: number;
  /** The widest bound since it was made: one that is made narrower keeps what it has. */
  maxMessages: number;
  maxBytes: number;
  hasAlwaysBlocked: boolean;
  hasEverBlocked: boolean;
  /** Of other orchestrators, which cannot be made to wait. */
  hasPeers: boolean;
}

export interface TrafficOptions {
  /** All queues together. */
  readonly maxQueueBytes: number | undefined;
  /** Every message is read when it is delivered. */
  readonly isExact: boolean;
  links(): ReadonlyMap<string, StoredLink>;
  demand(isSo: boolean, what: string, found?: unknown): void;
}

export class Traffic {
  readonly #options: TrafficOptions;
  readonly #seqs: Map<string, number> = new Map();
  readonly #lives: Map<string, LinkLife> = new Map();
  /** Messages, and what was no message, that a source has sent since it was added. */
  readonly #received: Map<InstanceId, number> = new Map();
  /** By type and target: what the kernel took, and what links that are gone had counted. */
  readonly #taken: Map<string, number> = new Map();
  readonly #banked: Map<string, number> = new Map();
  /** Of such links, how many may have had a message of which the beginning was sent. */
  readonly #cut: Map<string, number> = new Map();
  #leaving: readonly LinkInfo[] = [];
  /** The last message of each source and type that reached each target. */
  readonly #last: Map<string, number> = new Map();
  /** When each message was routed, and each instance has exited: by one count. */
  readonly #routedAt: Map<string, number> = new Map();
  readonly #exitedAt: Map<InstanceId, number> = new Map();
  #at = 0;
  /** Of each source, how many messages at least one link took. */
  readonly #routed: Map<InstanceId, number> = new Map();
  /** How many the kernel took in all. */
  taken = 0;

  constructor(options: TrafficOptions) {
    this.#options = options;
  }

  /** The next message of a type from a source. */
  next(from: InstanceId, typeName: string): Sent {
    const seq = (this.#seqs.get(`${from} ${typeName}`) ?? 0) + 1;
    this.#seqs.set(`${from} ${typeName}`, seq);
    return { from, typeName, seq };
  }

  /** The daemon reads a message; undefined: something that is none. */
  read(from: InstanceId, message?: Sent): void {
    this.#received.set(from, this.received(from) + 1);
    if (message === undefined) return;
    const { typeName, seq } = message;
    this.#routedAt.set(`${from} ${typeName} ${seq}`, ++this.#at);
    const all = [...this.#options.links()].filter(([, { key }]) => key.typeName === typeName);
    const named = all.filter(([, { key }]) => key.from === from);
    const targets = new Set(named.map(([, { key }]) => formatTarget(key.to)));
    const others = all.filter(
      ([, { key }]) => key.from === undefined && !targets.has(formatTarget(key.to)),
    );
    if (named.length + others.length > 0) add(this.#routed, from, 1);
    for (const [name] of [...named, ...others]) {
      const life = this.#life(name);
      life.routed++;
      life.hasPeers ||= from === PEER;
    }
  }

  received(from: InstanceId): number {
    return this.#received.get(from) ?? 0;
  }

  routed(from: InstanceId): number {
    return this.#routed.get(from) ?? 0;
  }

  /** The kernel took a whole message for an instance. */
  take(to: InstanceId, { from, typeName, seq }: Sent): void {
    const { demand, isExact } = this.#options;
    this.taken++;
    add(this.#taken, `${typeName} ${to}`, 1);
    const path = `${from} ${typeName} ${to}`;
    const last = this.#last.get(path) ?? 0;
    demand(seq > last, `messages of ${path} come in order, once, after ${last}`, seq);
    this.#last.set(path, seq);
    const routedAt = this.#routedAt.get(`${from} ${typeName} ${seq}`) ?? 0;
    demand(routedAt > 0, `${path} carries what was sent`, seq);
    const exitedAt = this.#exitedAt.get(to) ?? 0;
    const isFresh = routedAt > exitedAt || !isExact;
    demand(isFresh, `${to} sees nothing that was meant for its predecessor`, seq);
  }

  /** A datagram went to another orchestrator. */
  takeRemote(typeName: string, to: string): void {
    add(this.#taken, `${typeName} ${to}`, 1);
  }

  exited(id: InstanceId): void {
    this.#exitedAt.set(id, ++this.#at);
  }

  added(id: InstanceId): void {
    this.#received.delete(id);
    this.#routed.delete(id);
  }

  /** A link is made, or has other settings. */
  linked(name: string, settings: LinkSettings): void {
    const life = this.#lives.get(name);
    if (life === undefined) this.#lives.set(name, newLife(settings));
    else {
      const { maxBytes, maxMessages, onFull } = settings;
      life.maxBytes = Math.max(life.maxBytes, maxBytes);
      life.maxMessages = Math.max(life.maxMessages, maxMessages);
      life.hasAlwaysBlocked &&= onFull === "block";
      life.hasEverBlocked ||= onFull === "block";
    }
  }

  /** Links may be about to go: these are their accounts. */
  leaving(infos: readonly LinkInfo[]): void {
    this.#leaving = infos;
  }

  /** It is settled which of them are gone. */
  left(): void {
    const links = this.#options.links();
    for (const { from, type_name, to, delivered, queued } of this.#leaving) {
      const name = `${from ?? "any"} ${type_name} ${to}`;
      if (links.has(name)) continue;
      add(this.#banked, `${type_name} ${to}`, delivered);
      if (queued > 0) add(this.#cut, `${type_name} ${to}`, 1);
      this.#lives.delete(name);
    }
    this.#leaving = [];
  }

  /** Another daemon begins with these links, and without a message. */
  restarted({ links }: Page): void {
    for (const map of [this.#lives, this.#received, this.#routed]) map.clear();
    for (const map of [this.#taken, this.#banked, this.#cut]) map.clear();
    for (const [name, { settings }] of links) this.linked(name, settings);
  }

  /** Holds the accounts of all links against what was sent and what arrived. */
  check(infos: readonly LinkInfo[]): void {
    const { demand, isExact, maxQueueBytes } = this.#options;
    const delivered = new Map(this.#banked);
    let queuedBytes = 0;
    for (const info of infos) {
      const { from, type_name, to, routed, queued } = info;
      const name = `${from ?? "any"} ${type_name} ${to}`;
      const dropped = Object.values(info.dropped).reduce((sum, count) => sum + count, 0);
      const life = this.#life(name);
      demand(
        routed === info.delivered + dropped + queued,
        `accounts of ${name} add up`,
        text(info),
      );
      if (isExact) demand(routed === life.routed, `${life.routed} messages took ${name}`, routed);
      // Of one message, all but a byte may have been sent.
      const leastBytes = Math.max(0, queued - 1) * LEAST_BYTES;
      const isBound = queued <= life.maxMessages && leastBytes <= life.maxBytes;
      demand(isBound || life.hasEverBlocked, `${name} is bounded`, text(info));
      if (life.hasAlwaysBlocked && maxQueueBytes === undefined && !life.hasPeers) {
        const { full = 0 } = info.dropped;
        demand(full === 0 || isRemote(to), `${name} waits and drops nothing`, full);
      }
      queuedBytes += leastBytes;
      add(delivered, `${type_name} ${to}`, info.delivered);
    }
    const most = maxQueueBytes ?? Number.POSITIVE_INFINITY;
    demand(queuedBytes <= most, "all queues together are bounded", queuedBytes);
    for (const [path, count] of delivered) {
      const taken = this.#taken.get(path) ?? 0;
      const isCounted = count <= taken && taken <= count + (this.#cut.get(path) ?? 0);
      demand(isCounted, `the kernel took ${count} messages of ${path}`, taken);
    }
  }

  #life(name: string): LinkLife {
    const life = this.#lives.get(name);
    if (life !== undefined) return life;
    this.#options.demand(false, "every link was asked for", name);
    return newLife({ maxBytes: 0, maxMessages: 0, onFull: "block", owner: null });
  }
}

function newLife({ maxBytes, maxMessages, onFull }: LinkSettings): LinkLife {
  const isBlocking = onFull === "block";
  return {
    routed: 0,
    maxBytes,
    maxMessages,
    hasAlwaysBlocked: isBlocking,
    hasEverBlocked: isBlocking,
    hasPeers: false,
  };
}

function add(map: Map<string, number>, key: string, count: number): void {
  map.set(key, (map.get(key) ?? 0) + count);
}

function isRemote(to: string): boolean {
  return to.includes(":");
}

function text(info: LinkInfo): string {
  return JSON.stringify(info);
}
