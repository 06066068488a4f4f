// Random traffic through readers, router and outboxes, and the books of an accountant who knows only
// what went in and what the kernel was given. Every step is followed by an audit.

import { GATHER_BLOCK_BYTES, MAX_NATIVE_FRAME_BYTES, MAX_PIN_RATIO } from "../../src/limits.ts";
import type { Dialect, MessageReader, Run } from "../../src/message.ts";
import { NativeReader } from "../../src/message/native.ts";
import { TypeTable } from "../../src/message/typename.ts";
import { VeecleReader } from "../../src/message/veecle.ts";
import { type LinkKey, type LinkSettings, ON_FULL } from "../../src/model.ts";
import { Outbox } from "../../src/outbox.ts";
import { type LinkQueue, OutboxPool } from "../../src/queue.ts";
import { type Link, Router, Source } from "../../src/router.ts";
import { bytesOf, looseJson, nativeFrame, readMessage, veecleLine } from "./messages.ts";
import type { Random } from "./random.ts";

/** What the accountant knows of one link, also after it was removed. */
interface Account {
  readonly key: LinkKey;
  readonly link: Link;
  routed: number;
  /** Whole messages that the kernel was given. */
  arrived: number;
  /** Of those, the ones that came after the link was removed. */
  arrivedLate: number;
  isRemoved: boolean;
  /** Messages that the router told to be dropped. */
  heard: number;
  /** The settings were changed, and the queue may still hold more than they allow. */
  isChanged: boolean;
  /** The settings are those that it was added with. */
  isOriginal: boolean;
}

interface Sent {
  readonly typeName: string;
  readonly payload: Buffer;
}

/** The receiving end of one connection: takes as many bytes as it has room for, and reads them. */
class Connection {
  room = 0;
  /** Bytes of a message that is not whole yet. */
  #rest: Buffer = Buffer.alloc(0);
  #received = 0;
  readonly #dialects: [from: number, dialect: Dialect][] = [];
  readonly #random: Random;
  readonly #data: (id: number, message: ReturnType<typeof readMessage>) => void;
  readonly #control: (id: number) => void;

  constructor(
    random: Random,
    data: (id: number, message: ReturnType<typeof readMessage>) => void,
    control: (id: number) => void,
  ) {
    this.#random = random;
    this.#data = data;
    this.#control = control;
  }

  get hasCutMessage(): boolean {
    return this.#rest.length > 0;
  }

  /** Messages that begin from now on are to be in this dialect. */
  expect(dialect: Dialect): void {
    this.#dialects.push([this.#received, dialect]);
  }

  write(bytes: Buffer): number {
    check("a write has bytes", bytes.length > 0);
    const most = Math.min(this.room, bytes.length);
    const taken = this.#random.chance(0.7) ? most : this.#random.int(0, most);
    if (taken === 0) return this.#random.pick([0, -1]);
    this.room -= taken;
    this.#rest = Buffer.concat([this.#rest, bytes.subarray(0, taken)]);
    this.#received += taken;
    this.#read();
    return taken;
  }

  #read(): void {
    let at = 0;
    for (;;) {
      const whole = this.#rest.subarray(at, wholeMessage(this.#rest, at));
      if (whole.length === 0) break;
      const began = this.#received - this.#rest.length + at;
      at += whole.length;
      const control = controlNumber(whole);
      if (control === undefined) {
        const message = readMessage(whole, 0);
        const dialect = this.#dialects.findLast(([from]) => from <= began)?.[1];
        same("the dialect of a message", message.dialect, dialect);
        this.#data(messageNumber(message.payload), message);
      } else this.#control(control);
    }
    this.#rest = Buffer.from(this.#rest.subarray(at));
  }
}

/** The end of the message that begins at `at`, or 0 if it is not whole. */
function wholeMessage(bytes: Buffer, at: number): number {
  const end = bytes.length;
  if (at === end) return 0;
  if (bytes[at] !== 0) return bytes.indexOf("\n", at) + 1;
  const next = end - at < 4 ? Number.POSITIVE_INFINITY : at + 4 + bytes.readUInt32BE(at);
  return next <= end ? next : 0;
}

function messageNumber(payload: Buffer): number {
  return Number.parseInt(payload.toString("latin1", 0, 12), 10);
}

function controlMessage(dialect: Dialect, id: number): Buffer {
  return dialect === "native"
    ? nativeFrame(4, "", `{"Error":"${id}"}`)
    : Buffer.from(`{"ControlResponse":{"Error":"${id}"}}\n`);
}

function controlNumber(message: Buffer): number | undefined {
  const isControl = message[0] === 0 ? message[4] === 4 : message[2] === 0x43; // {"C…
  if (!isControl) return undefined;
  return Number(/"Error":"([0-9]+)"/.exec(message.toString())?.[1]);
}

/** One instance: what it sends, and what it receives. */
class Instance {
  readonly id: string;
  readonly source: Source;
  readonly outbox: Outbox;
  readonly writes: Dialect;
  /** What it has sent and nobody has read yet. */
  readonly unread: Buffer[] = [];
  reader: MessageReader | undefined;
  isWaiting = false;
  connection: Connection | undefined;
  dialect: Dialect = "veecle";
  isOpen = true;
  /** The accounts of what was routed here, by the number of the message. */
  readonly routed: Map<number, { readonly account: Account; readonly order: number }> = new Map();
  /** The place of the last message that arrived whole; all later ones were routed behind it. */
  lastArrived = -1;
  lastControl = -1;

  constructor(id: string, outbox: Outbox, writes: Dialect, canWait: boolean) {
    this.id = id;
    const onWait = (isWaiting: boolean): void => {
      check("a source is told to wait, and to go on, in turns", isWaiting !== this.isWaiting);
      this.isWaiting = isWaiting;
    };
    this.source = canWait ? new Source(id, onWait) : new Source(id);
    this.outbox = outbox;
    this.writes = writes;
  }
}

/** What a simulation may do, and what it checks besides the accounts. */
export interface TrafficOptions {
  /** Small queues and a small pool; otherwise nothing is ever full. */
  readonly isBounded?: boolean;
  /** Control messages of the orchestrator between the others. */
  readonly hasControl?: boolean;
  /** Many messages are too large to be gathered, and come in many chunks. */
  readonly hasLarge?: boolean;
  readonly checksBounds?: boolean;
  readonly checksMemory?: boolean;
}

const TYPES = ["a::Small", "b", 'c::"ö"<😀>'];

/** Beginnings of payloads: they are cut, never within a character of two units. */
const TEXTS = ["x", '"\\\n', "é€\u2028", "\0\u001f ", '{"value":7}'].map((text) =>
  text.repeat(300),
);

/** A few instances, links between them, and everything that can happen to them. */
export class Traffic {
  readonly #random: Random;
  readonly #options: TrafficOptions;
  readonly #pool: OutboxPool;
  readonly #router: Router;
  readonly #instances: Instance[];
  readonly #accounts: Account[] = [];
  readonly #sent: Sent[] = [];
  readonly #types: TypeTable = new TypeTable();
  readonly #largest: number;
  /** By how much more queues hold, and kernels take. */
  readonly #scale: number;
  readonly #canWait: boolean;
  #controls = 0;
  #routings = 1;
  readonly #emitted: Map<Source, { received: number; unlinked: number }> = new Map();

  constructor(random: Random, options: TrafficOptions) {
    this.#random = random;
    this.#options = options;
    this.#largest = options.checksMemory ? 900_000 : 150_000;
    const isFullPool = options.isBounded === true && random.chance(0.6);
    this.#scale = options.hasLarge === true ? 8 : 1;
    this.#pool = new OutboxPool(isFullPool ? random.size(200, 300_000 * this.#scale) : Infinity);
    this.#router = new Router((key, _reason, count) => {
      check("a drop has messages", count > 0);
      const account = this.#accounts.findLast((other) => other.key === key);
      if (account !== undefined) account.heard += count;
    }, this.#pool);
    this.#canWait = random.chance(0.7);
    this.#instances = Array.from({ length: random.int(1, 4) }, (_, i) => {
      const writes = random.pick(["native", "veecle"] as const);
      return new Instance(`instance-${i}`, new Outbox(this.#pool), writes, this.#canWait);
    });
    for (let count = random.int(1, 6); count > 0; count--) this.#addLink();
  }

  /** Does one thing after the other, and audits after each. */
  run(steps: number): void {
    for (; steps > 0; steps--) {
      this.#step();
      this.#audit();
    }
    if (this.#random.chance(0.5)) this.#drainAll();
    this.#closeAll();
  }

  #step(): void {
    const random = this.#random;
    const instance = random.pick(this.#instances);
    switch (random.pick(STEPS)) {
      case "emit":
        return this.#emit(instance);
      case "drain":
        if (instance.connection === undefined) return;
        instance.connection.room += random.size(0, 100_000 * this.#scale);
        return instance.outbox.drain();
      case "room":
        if (instance.connection !== undefined) instance.connection.room = random.size(0, 5_000);
        return;
      case "attach":
        return this.#attach(instance);
      case "detach":
        return this.#detach(instance);
      case "close":
        instance.outbox.close();
        instance.isOpen = false;
        instance.lastArrived = this.#routings - 1; // of what was routed before, nothing arrives
        return this.#detach(instance);
      case "open":
        instance.isOpen = true;
        return instance.outbox.open();
      case "control":
        return this.#control(instance);
      case "addLink":
        return this.#addLink();
      case "removeLink":
        return this.#removeLink();
      case "flush":
        return instance.outbox.flush();
    }
  }

  #addLink(): void {
    const random = this.#random;
    const target = random.pick(this.#instances);
    const key: LinkKey = {
      from: random.chance(0.4) ? random.pick(this.#instances).id : undefined,
      typeName: random.pick(TYPES),
      to: { kind: "instance", id: target.id },
    };
    const settings = this.#settings();
    const known = this.#accounts.find((other) => !other.isRemoved && isSame(other.key, key));
    same("a new link", this.#router.addLink(key, target.outbox, settings), known === undefined);
    if (known !== undefined) {
      known.isChanged = true;
      known.isOriginal = false;
      return;
    }
    const link = this.#router.findLink(key) as Link;
    const counts = { routed: 0, arrived: 0, arrivedLate: 0, heard: 0 };
    this.#accounts.push({
      key,
      link,
      isRemoved: false,
      isChanged: false,
      isOriginal: true,
      ...counts,
    });
  }

  #settings(): Partial<LinkSettings> {
    const random = this.#random;
    if (this.#options.isBounded !== true) return {};
    const onFull = random.pick(["drop-oldest", ...ON_FULL] as const);
    const maxMessages = random.chance(0.3) ? random.size(1, 50) : Infinity;
    return { onFull, maxMessages, maxBytes: random.size(60, 100_000 * this.#scale) };
  }

  #removeLink(): void {
    const account = this.#random.pick(this.#accounts);
    const exists = this.#accounts.some(
      (other) => !other.isRemoved && isSame(other.key, account.key),
    );
    same("a removed link", this.#router.removeLink(account.key), exists);
    for (const other of this.#accounts) if (isSame(other.key, account.key)) other.isRemoved = true;
  }

  #attach(instance: Instance): void {
    const random = this.#random;
    instance.dialect = random.pick(["native", "veecle"]);
    if (instance.connection === undefined) {
      instance.lastControl = this.#controls - 1;
      instance.connection = new Connection(
        random,
        (id, message) => this.#arrived(instance, id, message),
        (id) => {
          check("control messages are in order", id > instance.lastControl);
          instance.lastControl = id;
        },
      );
    }
    const { connection } = instance;
    connection.expect(instance.dialect);
    connection.room = random.size(0, 10_000);
    instance.outbox.attach(instance.dialect, (bytes) => connection.write(bytes));
  }

  #detach(instance: Instance): void {
    if (instance.connection === undefined) return;
    instance.connection = undefined;
    instance.outbox.detach();
  }

  #control(instance: Instance): void {
    if (this.#options.hasControl !== true || instance.connection === undefined) return;
    instance.outbox.send(controlMessage(instance.dialect, this.#controls++));
  }

  /** Sends a batch of messages, in chunks as a socket would cut them. */
  #emit(instance: Instance): void {
    const random = this.#random;
    const parts: Buffer[] = [];
    const types = random.chance(0.5) ? [random.pick(TYPES)] : TYPES;
    // Without waiting everything is read at once, and numbers are in order over all sources.
    for (let count = random.size(1, 15); count > 0 && instance.unread.length === 0; count--) {
      const typeName = random.pick(types);
      const payload = this.#payload(this.#sent.length, instance.writes);
      this.#sent.push({ typeName, payload });
      parts.push(
        instance.writes === "native"
          ? nativeFrame(1, typeName, payload)
          : this.#line(typeName, payload.toString()),
      );
    }
    const stream = Buffer.concat(parts);
    instance.unread.push(...(stream.length < 3_000 ? random.cut(stream) : halves(random, stream)));
    this.#read(instance);
  }

  /** Reads what an instance has sent, as long as it need not wait. */
  #read(instance: Instance): void {
    instance.reader ??= this.#reader(instance);
    while (!instance.isWaiting) {
      const chunk = instance.unread.shift();
      if (chunk === undefined) return;
      instance.reader.push(chunk);
      this.#router.flush();
    }
  }

  #reader(instance: Instance): MessageReader {
    const never = (): never => {
      throw new Error("no such message was sent");
    };
    const sink = {
      data: (run: Run) => {
        const bytes = bytesOf(run);
        for (let at = 0; at < bytes.length;) {
          const { payload, end } = readMessage(bytes, at);
          this.#book(instance, messageNumber(payload), run.type.text);
          at = end;
        }
        this.#router.route(instance.source, run);
      },
      telemetry: never,
      controlRequest: never,
      hello: never,
      skipped: never,
    };
    return instance.writes === "native"
      ? new NativeReader(this.#types, MAX_NATIVE_FRAME_BYTES, sink)
      : new VeecleReader(this.#types, MAX_NATIVE_FRAME_BYTES, sink);
  }

  #line(typeName: string, value: string): Buffer {
    if (this.#random.chance(0.95)) return veecleLine(typeName, value);
    const storable = { Storable: { type_name: typeName, value } };
    return Buffer.from(`${looseJson(this.#random, storable)}\n`);
  }

  #payload(id: number, dialect: Dialect): Buffer {
    const random = this.#random;
    if (this.#options.hasLarge === true && dialect === "native" && random.chance(0.3)) {
      return Buffer.from(`${id} `.padEnd(random.int(30_000, 300_000), "large "));
    }
    const length = random.chance(0.93)
      ? random.size(0, 200)
      : random.pick([
          random.int(1_900, 2_050),
          random.size(0, 40_000),
          random.size(0, this.#largest),
        ]);
    const text =
      length > 300
        ? random.pick(["x", "é", '"', "\u0001"]).repeat(length / 2)
        : random.pick(TEXTS).slice(0, length);
    const payload = Buffer.from(`${id} ${text}`);
    if (dialect === "native" && random.chance(0.1)) payload[payload.length - 1] = 0xff;
    return payload;
  }

  /** Books a message on the links that take it: to each instance one, and the one that names the source first. */
  #book(instance: Instance, id: number, typeName: string): void {
    const emitted = this.#emitted.get(instance.source) ?? { received: 0, unlinked: 0 };
    this.#emitted.set(instance.source, emitted);
    emitted.received++;
    let isLinked = false;
    for (const target of this.#instances) {
      const links = this.#accounts.filter(
        ({ key, link, isRemoved }) =>
          !isRemoved && key.typeName === typeName && link.target === target.outbox,
      );
      const account =
        links.find(({ key }) => key.from === instance.id) ??
        links.find(({ key }) => key.from === undefined);
      if (account === undefined) continue;
      isLinked = true;
      account.routed++;
      target.routed.set(id, { account, order: this.#routings++ });
    }
    if (!isLinked) emitted.unlinked++;
  }

  #arrived(instance: Instance, id: number, message: ReturnType<typeof readMessage>): void {
    const routed = instance.routed.get(id);
    if (routed === undefined) throw new Error("A message arrived that was not routed there");
    const { account, order } = routed;
    check("messages are in order, and none comes twice", order > instance.lastArrived);
    instance.lastArrived = order;
    const { typeName, payload } = this.#sent[id] as Sent;
    same("the type name of a message", message.typeName, typeName);
    check("a payload arrives as it was", message.payload.equals(payload));
    check("a line is short enough", message.dialect === "native" || message.end <= 2_049);
    account.arrived++;
    if (account.isRemoved) account.arrivedLate++;
  }

  #audit(): void {
    let used = 0;
    let halfSent = 0;
    for (const account of this.#accounts) {
      const { queue } = account.link;
      const held = inspect(queue);
      same("routed", queue.routed, account.routed);
      same("delivered", queue.delivered, account.arrived);
      same("queued", queue.queued, held.count);
      same("queuedBytes", queue.queuedBytes, held.bytes);
      same("dropped, as told", account.heard, dropped(queue));
      same("routed, in parts", queue.routed, queue.delivered + dropped(queue) + queue.queued);
      check("at most a half-sent message outlives its link", account.arrivedLate <= 1);
      if (this.#options.isBounded !== true) same("full", queue.dropped.get("full"), undefined);
      if (this.#options.checksBounds) checkBounds(account, held);
      if (this.#canWait && this.#pool.maxBytes === Infinity) checkNothingIsLost(account);
      if (this.#options.checksMemory) {
        const spare = held.count > 0 ? 2 * GATHER_BLOCK_BYTES : 0;
        atMost("pinned bytes", held.pinned, MAX_PIN_RATIO * held.bytes + spare);
      }
      used += held.bytes;
      halfSent += held.halfSent;
    }
    const { usedBytes, maxBytes } = this.#pool;
    same("usedBytes", usedBytes, used); // control messages are not counted
    if (this.#options.checksBounds) atMost("usedBytes", usedBytes - halfSent, maxBytes);
    for (const [source, emitted] of this.#emitted) {
      same("received", source.received, emitted.received);
      same("unlinked", source.unlinked, emitted.unlinked);
    }
  }

  /** Lets every instance read all there is: then nothing may be left, and nobody may wait. */
  #drainAll(): void {
    for (const instance of this.#instances) {
      instance.outbox.open();
      this.#attach(instance);
    }
    for (let left = 1_000; left > 0 && !this.#instances.every(isDone); left--) {
      for (const instance of this.#instances) {
        (instance.connection as Connection).room = 1_000_000;
        instance.outbox.drain();
        this.#read(instance);
      }
    }
    for (const instance of this.#instances) {
      check("a source goes on when there is room", !instance.isWaiting);
      check("an outbox that is drained is empty", isDone(instance));
      same("a cut message", instance.connection?.hasCutMessage, false);
    }
    this.#audit();
    for (const { link } of this.#accounts) same("queued at the end", link.queue.queued, 0);
    same("usedBytes at the end", this.#pool.usedBytes, 0);
  }

  #closeAll(): void {
    for (const instance of this.#instances) {
      instance.outbox.close();
      this.#detach(instance);
      check("an outbox that is closed is empty", instance.outbox.isEmpty);
    }
    for (const instance of this.#instances) {
      check("nobody waits for a target that is closed", !instance.isWaiting);
    }
    this.#audit();
    for (const { link } of this.#accounts) {
      same("queued after close", link.queue.queued, 0);
      same("queuedBytes after close", link.queue.queuedBytes, 0);
      same("block after close", link.queue.block, undefined);
    }
    same("usedBytes after close", this.#pool.usedBytes, 0);
  }
}

function isDone(instance: Instance): boolean {
  return instance.outbox.isEmpty && instance.unread.length === 0;
}

/** The rest of a message whose beginning is sent has to be kept, however full the queue is. */
function checkBounds(account: Account, held: Held): void {
  const { onFull, maxBytes, maxMessages } = account.link.queue.settings;
  if (onFull === "block") return; // it may exceed its bounds by what one chunk brings
  const mostBytes = Math.max(maxBytes, held.halfSent);
  if (account.isChanged) {
    account.isChanged = held.bytes > mostBytes || held.count > maxMessages;
    return;
  }
  atMost("queuedBytes", held.bytes, mostBytes);
  atMost("queued", held.count, maxMessages);
}

/** If every source can wait, a link that says `block` drops nothing for want of room. */
function checkNothingIsLost({ link, isOriginal }: Account): void {
  const { settings, dropped } = link.queue;
  if (settings.onFull === "block" && isOriginal) same("full", dropped.get("full"), undefined);
}

// An audit is made of millions of comparisons, for which `expect` is too slow.

function check(rule: string, holds: boolean): void {
  if (!holds) throw new Error(`It does not hold that ${rule}`);
}

function same(what: string, actual: unknown, expected: unknown): void {
  if (!Object.is(actual, expected)) throw new Error(`${what}: ${actual}, expected ${expected}`);
}

function atMost(what: string, actual: number, most: number): void {
  if (!(actual <= most)) throw new Error(`${what}: ${actual}, expected at most ${most}`);
}

/** What a simulation does, the more often the more often it stands here. */
const STEPS = (
  [
    ["emit", 30],
    ["drain", 15],
    ["room", 6],
    ["attach", 8],
    ["detach", 3],
    ["close", 1],
    ["open", 3],
    ["control", 4],
    ["addLink", 4],
    ["removeLink", 2],
    ["flush", 1],
  ] as const
).flatMap(([step, weight]) => new Array<typeof step>(weight).fill(step));

/** What a queue really holds. */
export interface Held {
  readonly count: number;
  readonly bytes: number;
  /** Of these bytes, those of a message whose beginning is sent. */
  readonly halfSent: number;
  /** The memory that the bytes keep alive. */
  readonly pinned: number;
}

export function inspect(queue: LinkQueue): Held {
  const held = { count: 0, bytes: 0, halfSent: 0, pinned: 0 };
  const memory = new Set<ArrayBufferLike>();
  if (queue.block !== undefined) memory.add(queue.block.bytes.buffer);
  for (let segment = queue.first; segment !== undefined; segment = segment.nextOfQueue) {
    const { chunk, start, end, rest, partial } = segment;
    const count = partial ? 1 : messagesWithin(bytesOf(segment));
    same("the count of a segment", segment.count, count);
    for (const { buffer } of [chunk, ...rest]) memory.add(buffer);
    held.count += count;
    held.bytes += end - start;
    if (partial) held.halfSent += end - start;
  }
  for (const buffer of memory) held.pinned += buffer.byteLength;
  return held;
}

function messagesWithin(bytes: Buffer): number {
  let count = 0;
  for (let at = 0; at < bytes.length; count++) {
    const next = wholeMessage(bytes, at);
    check("a segment holds whole messages", next > at);
    at = next;
  }
  return count;
}

/** Messages that were dropped, whatever the reason. */
export function dropped(queue: LinkQueue): number {
  return [...queue.dropped.values()].reduce((sum, count) => sum + count, 0);
}

function isSame(a: LinkKey, b: LinkKey): boolean {
  return a.from === b.from && a.typeName === b.typeName && Bun.deepEquals(a.to, b.to);
}

/** A large stream in a few chunks. */
function halves(random: Random, stream: Buffer): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < stream.length;) {
    const end = Math.min(stream.length, at + random.size(500, stream.length));
    chunks.push(Buffer.from(stream.subarray(at, end)));
    at = end;
  }
  return chunks;
}
