// The program of an instance: sends numbered messages and whatever else a program may send, right and
// wrong, and reads what comes with a parser of its own.

import type { InstanceId } from "../../src/model.ts";
import { nativeFrame, readMessage, veecleLine } from "../support/messages.ts";
import type { FakeProcess } from "../support/host.ts";
import type { Random } from "../support/random.ts";
import type { Sent, Traffic } from "./traffic.ts";
import type { Wire } from "./wire.ts";

export const TYPES = ["T", "U", "sensor::Reading"] as const;

export interface GuestOptions {
  readonly random: Random;
  readonly id: InstanceId;
  readonly process: FakeProcess;
  /** The process of the run that it belongs to, if it belongs to one. */
  readonly leader: FakeProcess;
  readonly traffic: Traffic;
  /** Ids that it may ask to start or stop. */
  anyId(): InstanceId;
  /** A line of telemetry that no other is like, and that it is read. */
  nextLine(): string;
  lineRead(): void;
  demand(isSo: boolean, what: string, found?: unknown): void;
}

/** Something that was sent: when its last byte is delivered, it has happened. */
interface Item {
  readonly end: number;
  happen(): void;
}

/** How often it sends what, in parts. */
const SENDS = { data: 30, telemetry: 3, control: 2, hello: 1, unknown: 1, bad: 0.3 } as const;
const TOTAL = Object.values(SENDS).reduce((sum, part) => sum + part, 0);

export class Guest {
  readonly #options: GuestOptions;
  readonly dialect: "native" | "veecle";
  wire: Wire | undefined;
  /** The daemon would not have it: it is somebody else's, or the second one. */
  isIntruder = false;
  note: (what: string) => void = () => {};
  #items: Item[] = [];
  #sent = 0;
  #delivered = 0;
  #bytes: Buffer = Buffer.alloc(0);
  #taken = 0;
  /** From this byte on, everything that begins is in its own dialect. */
  #toldAt: number | undefined;
  #asked = 0;
  #answered = 0;
  #isBad = false;

  constructor(options: GuestOptions) {
    this.#options = options;
    this.dialect = options.random.pick(["native", "veecle"]);
  }

  get id(): InstanceId {
    return this.#options.id;
  }

  get process(): FakeProcess {
    return this.#options.process;
  }

  get leader(): FakeProcess {
    return this.#options.leader;
  }

  /** Control requests that were read and not answered. */
  get unanswered(): number {
    return this.#asked - this.#answered;
  }

  /** Sends some items, of which one may be wrong. */
  send(count: number): void {
    if (this.wire?.isEnding !== false) return;
    const parts: Buffer[] = [];
    for (let i = 0; i < count && !this.#isBad; i++) parts.push(this.#some());
    this.wire.send(Buffer.concat(parts));
  }

  /** So many bytes in all are about to reach the daemon. */
  delivering(bytes: number): void {
    if (this.isIntruder || bytes === Number.POSITIVE_INFINITY) return;
    this.#toldAt ??= this.#taken;
    this.note(`delivers ${bytes}`);
    this.#delivered = bytes;
    while (this.#items[0] !== undefined && this.#items[0].end <= bytes) {
      this.#items.shift()?.happen();
    }
  }

  /** The daemon is told that no more comes: a last line that lacks only its newline has happened (P-2). */
  ended(): void {
    const [next] = this.#items;
    if (this.dialect === "veecle" && next?.end === this.#delivered + 1) next.happen();
  }

  /** The kernel took bytes for it. */
  take(bytes: Buffer): void {
    const { demand, id } = this.#options;
    demand(!this.isIntruder, `nothing is told to an intruder at ${id}`, bytes);
    this.#taken += bytes.length;
    const all = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes]);
    let at = 0;
    for (let end = messageEnd(all, at); end > 0; end = messageEnd(all, at)) {
      const isFrame = all[at] === 0;
      const begun = this.#taken - (all.length - at);
      const isFree = this.#toldAt === undefined || begun < this.#toldAt;
      const isFit = isFrame ? this.dialect === "native" : this.dialect === "veecle" || isFree;
      demand(isFit, `${id} is spoken to in its dialect`, all.toString("latin1", at, end));
      this.#read(all.subarray(at, end));
      at = end;
    }
    this.#bytes = all.subarray(at);
  }

  #read(message: Buffer): void {
    const { demand, traffic, id } = this.#options;
    const isFrame = message[0] === 0;
    const kind = isFrame ? (message[4] as number) : message[2] === 0x53 ? 1 : 4;
    if (kind === 4) {
      this.#answered++;
      demand(this.#answered <= this.#asked, `${id} is answered once`, message);
    } else if (kind === 1) {
      try {
        const { typeName, payload } = readMessage(message, 0);
        const [from = "", seq] = payload.toString("latin1").split(" ");
        traffic.take(id, { from, typeName, seq: Number(seq) });
        const isShort = isFrame || message.length <= 2_049;
        demand(isShort, `a line for ${id} is short enough`, message.length);
      } catch (error) {
        demand(false, `${id} gets whole messages`, `${error} in ${message.toString("latin1")}`);
      }
    } else demand(kind === 2 || kind === 6, `${id} gets known messages`, kind);
  }

  #some(): Buffer {
    const { random, id, traffic, anyId, nextLine, lineRead } = this.#options;
    let chance = (random.next() / 2 ** 32) * TOTAL;
    const kind = (Object.keys(SENDS) as (keyof typeof SENDS)[]).find(
      (name) => (chance -= SENDS[name]) < 0,
    );
    const isNative = this.dialect === "native";
    switch (kind) {
      case "telemetry": {
        const line = nextLine();
        const bytes = isNative ? frame(5, line) : Buffer.from(`{"Telemetry":${line}}\n`);
        return this.#item(bytes, lineRead);
      }
      case "control": {
        const verb = random.pick(["StartRuntime", "StopRuntime"]);
        const request = JSON.stringify({ [verb]: { id: anyId() } });
        const asked = (): void => void this.#asked++;
        if (isNative) return this.#item(frame(3, request), asked);
        return this.#item(Buffer.from(`{"ControlRequest":${request}}\n`), asked);
      }
      case "hello":
        if (isNative) return this.#item(frame(2, "{}"));
        break;
      case "unknown": {
        const bytes = isNative ? frame(9, "?") : Buffer.from('{"ControlResponse":"Started"}\n');
        return this.#item(bytes, () => traffic.read(id));
      }
      case "bad": {
        this.#isBad = true;
        const bytes = isNative ? Buffer.from([0, 0, 0, 1]) : Buffer.from('{"Storable":7}\n');
        return this.#item(bytes, () => traffic.read(id));
      }
    }
    return this.#data(traffic.next(id, random.pick(TYPES)));
  }

  #data(message: Sent): Buffer {
    const { random, id, traffic } = this.#options;
    const { typeName, seq } = message;
    const length = random.chance(0.02) ? 2_100 : random.size(0, 60);
    const fill = random.pick(["x", "\n", '"', "é"]).repeat(length);
    const happen = (): void => traffic.read(id, message);
    if (this.dialect === "veecle") {
      return this.#item(veecleLine(typeName, `${id} ${seq} ${fill}`), happen);
    }
    const tail = random.chance(0.05) ? Buffer.from([0xff]) : Buffer.from(fill);
    const payload = Buffer.concat([Buffer.from(`${id} ${seq} `), tail]);
    return this.#item(nativeFrame(1, typeName, payload), happen);
  }

  #item(bytes: Buffer, happen: () => void = () => {}): Buffer {
    this.#sent += bytes.length;
    this.#items.push({ end: this.#sent, happen });
    return bytes;
  }
}

function frame(kind: number, payload: string): Buffer {
  return nativeFrame(kind, "", payload);
}

/** Where the message at `at` ends, or 0 if it is not whole. */
function messageEnd(bytes: Buffer, at: number): number {
  if (at >= bytes.length) return 0;
  if (bytes[at] !== 0) return bytes.indexOf(0x0a, at) + 1;
  if (bytes.length - at < 4) return 0;
  const end = at + 4 + bytes.readUInt32BE(at);
  return end > bytes.length ? 0 : end;
}
