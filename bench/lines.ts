// Load generators of telemetry: who prints lines at an even pace, and the server that takes them.

import { crc32 } from "node:zlib";

import { telemetryLine } from "./bytes.ts";
import type { Command, PacerPlan } from "./plan.ts";
import type { Role, Socket } from "./role.ts";
import type { Answer } from "./side.ts";

/** Lines become due in batches this far apart, however often the timer fires. */
const TICK_MS = 1;
/** Most lines of one write: as much as a socket takes at once. */
const MAX_LINES = 512;

/** Prints equal lines, as many as are due: what it is behind it makes up for. */
export class Pacer implements Role {
  readonly #socket: Socket;
  readonly #lines: Buffer;
  readonly #lineBytes: number;
  readonly #linesPerTick: number;
  #startedAt = 0;
  #sent = 0;
  #isFull = false;
  #timer: ReturnType<typeof setInterval> | undefined;
  #halt: Answer | undefined;

  constructor(plan: PacerPlan, socket: Socket) {
    this.#socket = socket;
    this.#lineBytes = plan.lineBytes;
    this.#linesPerTick = Math.round((plan.linesPerSecond / 1e3) * TICK_MS);
    const line = telemetryLine(plan.lineBytes);
    this.#lines = Buffer.concat(Array.from({ length: MAX_LINES }, () => line));
  }

  data(): void {}

  drain(): void {
    this.#isFull = false;
    this.#pump();
  }

  command(command: Command, answer: Answer): void {
    if (command.kind === "flood") {
      this.#startedAt = performance.now();
      this.#sent = 0;
      this.#timer = setInterval(() => this.#pump(), TICK_MS);
    } else if (command.kind === "halt") {
      clearInterval(this.#timer);
      this.#halt = answer;
      this.#pump();
    }
  }

  #pump(): void {
    while (!this.#isFull) {
      const cut = this.#sent % this.#lineBytes;
      const elapsedMs = performance.now() - this.#startedAt;
      const due =
        this.#halt === undefined
          ? Math.floor(elapsedMs / TICK_MS) * this.#linesPerTick * this.#lineBytes
          : this.#sent + (cut === 0 ? 0 : this.#lineBytes - cut);
      const length = Math.min(due - this.#sent, this.#lines.length - cut);
      if (length <= 0) break;
      const taken = Math.max(0, this.#socket.write(this.#lines.subarray(cut, cut + length)));
      this.#sent += taken;
      this.#isFull = taken < length;
    }
    if (this.#isFull) return;
    this.#halt?.({ bytes: this.#sent });
    this.#halt = undefined;
  }
}

/** Takes everything; counts and checksums each connection by itself, since lines may not mix within. */
export class Collector implements Role {
  readonly #streams: Map<Socket, { bytes: number; crc: number }> = new Map();
  readonly #port: number;

  constructor() {
    const listener = Bun.listen<undefined>({
      hostname: "127.0.0.1",
      port: 0,
      socket: { data: (socket, chunk) => this.data(socket, chunk) },
    });
    this.#port = listener.port;
  }

  data(socket: Socket, chunk: Buffer): void {
    const { bytes, crc } = this.#streams.get(socket) ?? { bytes: 0, crc: 0 };
    this.#streams.set(socket, { bytes: bytes + chunk.length, crc: crc32(chunk, crc) });
  }

  drain(): void {}

  command(command: Command, answer: Answer): void {
    if (command.kind === "status")
      answer({ port: this.#port, streams: [...this.#streams.values()] });
  }
}
