// One load generator: producer, consumer, asker or echo, as its plan says.
//
// Cheap by design, since it must not be what is measured: a producer writes views of bytes that are
// built once, a consumer counts and checksums whole chunks, an echo writes back what came. The same
// program runs below the orchestrator, at the bare relay, and joined directly to its counterpart.

import { readFileSync } from "node:fs";
import { crc32 } from "node:zlib";

import { encodeNative, KIND } from "../src/message.ts";
import { buildPeriod, messageBytes } from "./bytes.ts";
import { ACK_BYTES, BLOCK_BYTES, type Command, type LoadPlan, WINDOW_BYTES } from "./plan.ts";
import { type Answer, reportTo } from "./side.ts";

type Socket = Bun.Socket<undefined>;

/** What a role does with its data sockets and with the commands of the bench. */
interface Role {
  data(socket: Socket, chunk: Buffer): void;
  drain(): void;
  command(command: Command, answer: Answer): void;
}

/** Sends its period again and again, with at most a window under way. */
class Producer implements Role {
  readonly #plan: LoadPlan;
  readonly #period: Buffer;
  readonly #socket: Socket;
  readonly #acked: number[] = [];
  #ackedBytes = 0;
  /** Bytes of earlier rounds, and of this one. */
  #base = 0;
  #sent = 0;
  #goal = 0;
  #isFull = false;
  #answer: Answer | undefined;

  constructor(plan: LoadPlan, socket: Socket) {
    this.#plan = plan;
    this.#period = buildPeriod(plan.traffic);
    this.#socket = socket;
    this.#listenForAcks();
  }

  data(): void {}

  drain(): void {
    this.#isFull = false;
    this.#pump();
  }

  command(command: Command, answer: Answer): void {
    if (command.kind !== "send") return;
    this.#answer = answer;
    this.#goal = command.bytes;
    this.#sent = 0;
    this.#pump();
  }

  #listenForAcks(): void {
    const slots = new Map<Socket, number>();
    Bun.listen<undefined>({
      unix: this.#plan.acks,
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
class Consumer implements Role {
  readonly #ackBytes: number;
  readonly #ackSocket: Promise<Socket>;
  #acks: Socket | undefined;
  #received = 0;
  #acked = 0;
  #bytes = 0;
  #crc = 0;
  #goal = 0;
  #answer: Answer | undefined;

  constructor(plan: LoadPlan) {
    this.#ackBytes = plan.ackBytes;
    this.#ackSocket = connectSoon(plan.acks);
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

/** Sends one message, waits for the same bytes, and takes the time of each round trip. */
class Asker implements Role {
  readonly #socket: Socket;
  readonly #period: Buffer;
  readonly #length: number;
  #samples = new Float64Array(0);
  #done = 0;
  #pending = 0;
  #crc = 0;
  #bytes = 0;
  #sentAt = 0;
  #answer: Answer | undefined;

  constructor(plan: LoadPlan, socket: Socket) {
    this.#socket = socket;
    this.#period = buildPeriod(plan.traffic);
    this.#length = messageBytes(plan.traffic.dialect, plan.traffic.payloadBytes);
  }

  data(_socket: Socket, chunk: Buffer): void {
    this.#bytes += chunk.length;
    this.#crc = crc32(chunk, this.#crc);
    this.#pending -= chunk.length;
    if (this.#pending > 0) return;
    this.#samples[this.#done++] = Bun.nanoseconds() - this.#sentAt;
    if (this.#done < this.#samples.length) this.#ask();
    else this.#finish();
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
class Echo implements Role {
  data(socket: Socket, chunk: Buffer): void {
    if (socket.write(chunk) !== chunk.length) throw new Error("the kernel did not take an echo");
  }

  drain(): void {}

  command(): void {}
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

/** Tells an orchestrator our dialect; settles when its answer, if there will be one, has come. */
class Greeting {
  readonly done: Promise<void>;
  readonly #resolve: () => void;
  #answer: Buffer = Buffer.alloc(0);
  isOver = false;

  constructor(plan: LoadPlan, socket: Socket) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.done = promise;
    this.#resolve = resolve;
    if (plan.greets && plan.traffic.dialect === "native") {
      socket.write(encodeNative(KIND.hello, Buffer.alloc(0), Buffer.from('{"version":1}')));
      return;
    }
    if (plan.greets) socket.write('{"Telemetry":{"thread_id":"bench","message":{}}}\n');
    this.isOver = true;
    resolve();
  }

  /** Takes what comes before the answer is complete. */
  push(chunk: Buffer): void {
    this.#answer = Buffer.concat([this.#answer, chunk]);
    if (this.#answer.length < 4) return;
    if (this.#answer.length < 4 + this.#answer.readUInt32BE(0)) return;
    this.isOver = true;
    this.#resolve();
  }
}

const plan = JSON.parse(readFileSync(process.argv[2] as string, "utf8")) as LoadPlan;
let role: Role | undefined;
let greeting: Greeting | undefined;

const handlers: Bun.SocketHandler<undefined> = {
  data: (socket, chunk) => {
    if (greeting?.isOver === false) greeting.push(chunk);
    else role?.data(socket, chunk);
  },
  drain: () => role?.drain(),
  close: () => process.exit(0),
};

/** The data socket; undefined if somebody is to connect to us. */
async function open(): Promise<Socket | undefined> {
  if (plan.listen !== undefined) {
    Bun.listen<undefined>({ unix: plan.listen, socket: handlers });
    return undefined;
  }
  const unix = plan.connect ?? process.env["VEECLE_IPC_SOCKET"] ?? "";
  return Bun.connect<undefined>({ unix, socket: handlers });
}

const socket = await open();
if (plan.role === "producer") role = new Producer(plan, socket as Socket);
else if (plan.role === "consumer") role = new Consumer(plan);
else if (plan.role === "asker") role = new Asker(plan, socket as Socket);
else role = new Echo();
if (plan.greets) {
  greeting = new Greeting(plan, socket as Socket);
  await greeting.done;
}
await reportTo(plan.side, plan.name, (command, answer) => role?.command(command, answer));
