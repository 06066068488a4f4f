// Load generators of round trips: one asks, the other echoes.

import { crc32 } from "node:zlib";

import { buildPeriod, messageBytes } from "./bytes.ts";
import type { AskerPlan, Command } from "./plan.ts";
import type { Role, Socket } from "./role.ts";
import type { Answer } from "./side.ts";

/** Sends one message, waits for the same bytes, and takes the time of each round trip. */
export class Asker implements Role {
  readonly #socket: Socket;
  readonly #period: Buffer;
  readonly #length: number;
  readonly #pauseMs: number;
  #samples = new Float64Array(0);
  #done = 0;
  #pending = 0;
  #crc = 0;
  #bytes = 0;
  #sentAt = 0;
  #answer: Answer | undefined;

  constructor(plan: AskerPlan, socket: Socket) {
    this.#socket = socket;
    this.#period = buildPeriod(plan.traffic);
    this.#pauseMs = plan.pauseMs;
    this.#length = messageBytes(plan.traffic.wire, plan.traffic.payloadBytes);
  }

  data(_socket: Socket, chunk: Buffer): void {
    this.#bytes += chunk.length;
    this.#crc = crc32(chunk, this.#crc);
    this.#pending -= chunk.length;
    if (this.#pending > 0) return;
    this.#samples[this.#done++] = Bun.nanoseconds() - this.#sentAt;
    if (this.#done === this.#samples.length) this.#finish();
    else if (this.#pauseMs === 0) this.#ask();
    else setTimeout(() => this.#ask(), this.#pauseMs);
  }

  drain(): void {}

  command(command: Command, answer: Answer): void {
    if (command.kind === "status") {
      this.#samples = this.#samples.slice(0, this.#done);
      this.#finish();
    }
    if (command.kind !== "ask") return;
    this.#answer = answer;
    this.#samples = new Float64Array(command.count);
    this.#done = this.#bytes = this.#crc = 0;
    this.#ask();
  }

  #ask(): void {
    const at = (this.#done * this.#length) % this.#period.length;
    this.#pending = this.#length;
    this.#sentAt = Bun.nanoseconds();
    this.#socket.write(this.#period.subarray(at, at + this.#length));
  }

  #finish(): void {
    const sorted = this.#samples.sort();
    const micros = (share: number): number =>
      (sorted[Math.floor(sorted.length * share)] ?? 0) / 1e3;
    this.#answer?.({ bytes: this.#bytes, crc: this.#crc, p50: micros(0.5), p99: micros(0.99) });
    this.#answer = undefined;
  }
}

/** Writes back what comes. There is one message under way at most: the kernel takes it at once. */
export class Echo implements Role {
  data(socket: Socket, chunk: Buffer): void {
    if (socket.write(chunk) !== chunk.length) throw new Error("the kernel did not take an echo");
  }

  drain(): void {}

  command(): void {}
}
