// Load generators of one direction: a producer and its consumers.
//
// Cheap by design, since they must not be what is measured: a producer writes views of bytes that are
// built once, a consumer counts and checksums whole chunks.

import { crc32 } from "node:zlib";

import { buildPeriod } from "./bytes.ts";
import {
  ACK_BYTES,
  BLOCK_BYTES,
  type Command,
  type ConsumerPlan,
  type ProducerPlan,
  WINDOW_BYTES,
} from "./plan.ts";
import type { Role, Socket } from "./role.ts";
import type { Answer } from "./side.ts";

/** Sends its period again and again, with at most a window under way, if its consumers acknowledge. */
export class Producer implements Role {
  readonly #plan: ProducerPlan;
  readonly #period: Buffer;
  readonly #messageBytes: number;
  readonly #socket: Socket;
  readonly #acked: number[] = [];
  #ackedBytes = 0;
  /** Bytes of earlier rounds, and of this one. */
  #base = 0;
  #sent = 0;
  #goal = 0;
  #isFull = false;
  #answer: Answer | undefined;

  constructor(plan: ProducerPlan, socket: Socket) {
    this.#plan = plan;
    this.#period = buildPeriod(plan.traffic);
    this.#messageBytes = this.#period.length / plan.traffic.period;
    this.#socket = socket;
    if (plan.acks === undefined) this.#ackedBytes = Number.MAX_SAFE_INTEGER;
    else this.#listenForAcks(plan.acks);
  }

  data(): void {}

  drain(): void {
    this.#isFull = false;
    this.#pump();
  }

  command(command: Command, answer: Answer): void {
    if (command.kind === "send" || command.kind === "flood") {
      this.#sent = 0;
      this.#goal = command.kind === "send" ? command.bytes : Number.MAX_SAFE_INTEGER;
      if (command.kind === "send") this.#answer = answer;
    } else if (command.kind === "halt") {
      this.#goal = Math.ceil(this.#sent / this.#messageBytes) * this.#messageBytes;
      this.#answer = answer;
    }
    this.#pump();
  }

  #listenForAcks(unix: string): void {
    const slots = new Map<Socket, number>();
    Bun.listen<undefined>({
      unix,
      socket: {
        open: (socket) => void slots.set(socket, this.#acked.push(0) - 1),
        data: (socket, chunk) => {
          const slot = slots.get(socket) as number;
          this.#acked[slot] = (this.#acked[slot] as number) + chunk.length * ACK_BYTES;
          this.#ackedBytes = this.#acknowledged();
          this.#pump();
        },
      },
    });
  }

  /** Bytes that all have, or that they have together if each gets a part. */
  #acknowledged(): number {
    if (this.#plan.spread === "split") return this.#acked.reduce((sum, one) => sum + one, 0);
    return this.#acked.length === this.#plan.consumers ? Math.min(...this.#acked) : 0;
  }

  #pump(): void {
    const period = this.#period;
    while (this.#sent < this.#goal && !this.#isFull) {
      const room = this.#ackedBytes + WINDOW_BYTES - this.#base - this.#sent;
      const offset = this.#sent % period.length;
      const wanted = Math.min(BLOCK_BYTES, this.#goal - this.#sent, period.length - offset);
      const length = Math.min(wanted, room);
      if (length < Math.min(wanted, ACK_BYTES)) return;
      const taken = this.#socket.write(period.subarray(offset, offset + length));
      if (taken > 0) this.#sent += taken;
      this.#isFull = taken < length;
    }
    if (this.#sent < this.#goal || this.#answer === undefined) return;
    this.#base += this.#goal;
    this.#answer({ bytes: this.#goal });
    this.#answer = undefined;
  }
}

const ACKS = Buffer.alloc(1024);

/** Counts, checksums and acknowledges what comes. */
export class Consumer implements Role {
  readonly #ackBytes: number;
  readonly #ackSocket: Promise<Socket> | undefined;
  #acks: Socket | undefined;
  #received = 0;
  #acked = 0;
  #bytes = 0;
  #crc = 0;
  #goal = 0;
  #answer: Answer | undefined;

  constructor(plan: ConsumerPlan) {
    this.#ackBytes = plan.ackBytes;
    if (plan.acks !== undefined) this.#ackSocket = connectSoon(plan.acks);
  }

  data(_socket: Socket, chunk: Buffer): void {
    this.#bytes += chunk.length;
    this.#received += chunk.length;
    this.#crc = crc32(chunk, this.#crc);
    const due = Math.floor(this.#received / this.#ackBytes) - this.#acked;
    if (due > 0) {
      this.#acks?.write(ACKS.subarray(0, due));
      this.#acked += due;
    }
    if (this.#bytes >= this.#goal) this.#finish();
  }

  drain(): void {}

  command(command: Command, answer: Answer): void {
    if (command.kind === "arm") void this.#arm(command.bytes, answer);
    else if (command.kind === "status") this.#finish();
  }

  async #arm(bytes: number, answer: Answer): Promise<void> {
    this.#acks = await this.#ackSocket;
    this.#bytes = 0;
    this.#crc = 0;
    this.#goal = bytes;
    this.#answer = answer;
    answer({});
  }

  #finish(): void {
    this.#answer?.({ bytes: this.#bytes, crc: this.#crc });
    this.#answer = undefined;
  }
}

/** Connects as soon as somebody listens there. */
async function connectSoon(path: string): Promise<Socket> {
  for (;;) {
    try {
      return await Bun.connect<undefined>({ unix: path, socket: { data() {} } });
    } catch {
      await Bun.sleep(5);
    }
  }
}
