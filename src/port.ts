// One instance's socket: its one connection, its dialect, and what it says.
//
// Hands data to the router, telemetry to the exporter and control requests to the orchestrator.
// Whatever is wrong with what the instance sends ends this connection only; it may connect again.

import { messageChain, OrchestratorError } from "./errors.ts";
import {
  DIALECT_WAIT_MS,
  LOG_INTERVAL_MS,
  MAX_CONTROL_ERROR,
  MAX_FRAME_BYTES,
  MAX_PENDING_CONTROL,
  MAX_TYPE_NAME_BYTES,
  MIN_SLICE_BYTES,
  READ_TURN_MS,
  SHARED_READ_TURN_MS,
  SHARED_TURNS_MS,
} from "./limits.ts";
import { type QuietLog, shorten } from "./log.ts";
import {
  type Dialect,
  encodeNative,
  KIND,
  type MessageReader,
  type MessageSink,
  type Run,
} from "./message.ts";
import { NativeReader } from "./message/native.ts";
import type { TypeTable } from "./message/typename.ts";
import { VeecleReader } from "./message/veecle.ts";
import type { InstanceId } from "./model.ts";
import type { Notice } from "./notices.ts";
import type { Outbox } from "./outbox.ts";
import { decodeInstanceRequest, type Request } from "./protocol.ts";
import type { Router, Source } from "./router.ts";
import { type Connection, DISCARD, type StreamHandlers } from "./socket.ts";
import type { TelemetryExporter } from "./telemetry.ts";

/** What a port needs of the rest of the house. */
export interface PortOptions {
  readonly id: InstanceId;
  readonly types: TypeTable;
  readonly router: Router;
  readonly source: Source;
  readonly outbox: Outbox;
  readonly telemetry: TelemetryExporter | undefined;
  /** Shared by all instances. */
  readonly turns: Turns;
  readonly quiet: QuietLog;
  /** Carries out a control request, or throws; false if the instance may not ask for it. */
  readonly control: (request: Request & { kind: "Start" | "Stop" }) => Promise<boolean>;
  /** Whether who connects belongs to the instance. */
  admits(connection: Connection): boolean;
  /** The instance has connected, or its connection has ended. */
  readonly connected: (isConnected: boolean) => void;
  after(ms: number, action: () => void): () => void;
  /** Milliseconds on a clock that is never set. */
  now(): number;
}

/** Whose turn it is to be read: an instance that sends alone may be read longer at a time. */
export class Turns {
  #last: Port | undefined;
  #changedMs = Number.NEGATIVE_INFINITY;

  /** Whether another instance than this one has sent something lately. */
  isShared(port: Port, nowMs: number): boolean {
    if (this.#last !== port) {
      this.#last = port;
      this.#changedMs = nowMs;
    }
    return nowMs - this.#changedMs < SHARED_TURNS_MS;
  }
}

/** The socket of one instance. */
export class Port implements MessageSink {
  readonly #options: PortOptions;
  readonly #id: InstanceId;
  #connection: Connection | undefined;
  #reader: MessageReader | undefined;
  #cancelWait: () => void = () => {};
  #control: Promise<void> = Promise.resolve();
  #pendingControl = 0;
  /** A link with the policy `block` has no room: nothing is read from the instance. */
  #isWaiting = false;
  /** How long the last bytes took to read; at first, unknown. */
  #bytesPerMs = 0;
  #rest: Buffer | undefined;
  /** Whether it is connected, as was told last. */
  #isTold = false;
  #isTellingLater = false;

  constructor(options: PortOptions) {
    this.#options = options;
    this.#id = options.id;
  }

  get isConnected(): boolean {
    return this.#connection !== undefined;
  }

  /** The dialect of the present connection, once its first byte has told. */
  get dialect(): Dialect | undefined {
    return this.#reader?.dialect;
  }

  /** Takes a connection of the instance's own processes, unless there is one already. */
  accept(connection: Connection): StreamHandlers {
    const { quiet, outbox, after } = this.#options;
    if (!this.#options.admits(connection)) {
      const { origin } = connection;
      const pid = origin?.kind === "unix" ? origin.credentials?.pid : undefined;
      quiet.warn(`stranger ${this.#id}`, "run", "refused a process that is not of the instance", {
        id: this.#id,
        pid,
      });
      connection.close();
      return DISCARD;
    }
    if (this.#connection !== undefined) {
      quiet.warn(`second ${this.#id}`, "run", "refused a second connection of the instance", {
        id: this.#id,
      });
      connection.close();
      return DISCARD;
    }
    this.#connection = connection;
    this.#tell("instance connected", true);
    this.#pace();
    // The first byte tells the dialect; an instance that waits for it is taken to speak Veecle. A
    // byte that came while this process was held up itself is read in the turn in between.
    this.#cancelWait = after(DIALECT_WAIT_MS, () => {
      this.#cancelWait = after(1, () => {
        if (this.#connection === connection && this.#reader === undefined) this.#attach("veecle");
      });
    });
    return {
      data: (chunk) => this.#receive(connection, chunk),
      drain: () => {
        if (this.#connection === connection) outbox.drain();
      },
      end: () => connection.close(),
      close: () => {
        this.#readRest(connection);
        this.#closed(connection, "instance disconnected");
      },
    };
  }

  /** Ends the connection: it belongs to a process that is gone, or to an instance being removed. */
  reset(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    this.#readRest(connection);
    this.#closed(connection, "instance connection ended");
    connection.close();
  }

  /** Stops or goes on reading from the instance. */
  wait(isWaiting: boolean): void {
    this.#isWaiting = isWaiting;
    this.#pace();
  }

  /** Tells a native instance that messages of its, or for it, were dropped. */
  notice(typeName: string, notice: Notice): void {
    if (this.dialect !== "native") return;
    const payload = Buffer.from(JSON.stringify(notice));
    this.#options.outbox.notify(encodeNative(KIND.notice, Buffer.from(typeName), payload));
  }

  data(run: Run): void {
    this.#options.router.route(this.#options.source, run);
  }

  telemetry(chunk: Buffer, start: number, end: number): void {
    this.#options.telemetry?.push(chunk, start, end);
  }

  controlRequest(value: unknown): void {
    const connection = this.#connection as Connection;
    this.#pendingControl++;
    this.#pace();
    const work = this.#control.then(() => this.#execute(value));
    this.#control = work.then((response) => {
      this.#pendingControl--;
      this.#pace();
      if (this.#connection === connection) this.#send("controlResponse", response);
    });
  }

  hello(): void {
    this.#send("hello", {
      version: 1,
      id: this.#id,
      limits: { frame: MAX_FRAME_BYTES, type_name: MAX_TYPE_NAME_BYTES },
    });
  }

  skipped(kind: string): void {
    const { source, quiet } = this.#options;
    source.received++;
    source.refused++;
    quiet.warn(`skipped ${this.#id}`, "run", `skipped a ${kind}`, { id: this.#id });
  }

  #pace(): void {
    const isHeld =
      this.#isWaiting || this.#rest !== undefined || this.#pendingControl >= MAX_PENDING_CONTROL;
    // The first byte is read in any case: it tells the dialect.
    if (isHeld && this.#reader !== undefined) this.#connection?.pause();
    else this.#connection?.resume();
  }

  /** Reads as much of a chunk as may be read in one turn, and the rest in later ones. */
  #receive(connection: Connection, chunk: Buffer): void {
    if (this.#connection !== connection) return;
    const { turns, now } = this.#options;
    const turnMs = turns.isShared(this, now()) ? SHARED_READ_TURN_MS : READ_TURN_MS;
    const sliceBytes = Math.max(MIN_SLICE_BYTES, Math.floor(this.#bytesPerMs * turnMs));
    const length = Math.min(chunk.length, sliceBytes);
    this.#read(connection, length < chunk.length ? chunk.subarray(0, length) : chunk);
    if (length === chunk.length || this.#connection !== connection) return;
    this.#rest = chunk.subarray(length);
    this.#pace();
    this.#options.after(0, () => {
      const rest = this.#rest;
      if (this.#connection !== connection || rest === undefined) return;
      this.#rest = undefined;
      this.#receive(connection, rest);
      this.#pace();
    });
  }

  /** What was received but not read yet is read now: the connection ends. */
  #readRest(connection: Connection): void {
    const rest = this.#rest;
    this.#rest = undefined;
    if (this.#connection !== connection) return;
    if (rest !== undefined) this.#read(connection, rest);
    this.#reader?.finish();
    this.#options.router.flush();
    this.#options.telemetry?.flush();
  }

  #read(connection: Connection, chunk: Buffer): void {
    const { router, telemetry, now } = this.#options;
    const begin = now();
    try {
      this.#reader ??= this.#open(chunk[0]);
      this.#reader.push(chunk);
    } catch (error) {
      if (!(error instanceof OrchestratorError)) throw error;
      this.#refuse(connection, error);
    } finally {
      // Without the writing: smaller slices would make that dearer, not cheaper.
      this.#bytesPerMs = chunk.length / (now() - begin);
      router.flush();
      telemetry?.flush();
      if (this.#isWaiting) this.#pace(); // a new connection of an instance that is held back
    }
  }

  /** @throws `bad_request` if no dialect begins with this byte */
  #open(first: number | undefined): MessageReader {
    const { types } = this.#options;
    if (first === 0) {
      this.#attach("native");
      return new NativeReader(types, MAX_FRAME_BYTES, this);
    }
    if (first === 0x7b || first === 0x22) {
      this.#attach("veecle");
      return new VeecleReader(types, MAX_FRAME_BYTES, this);
    }
    throw new OrchestratorError(
      "bad_request",
      `Cannot read message: no dialect begins with byte 0x${(first ?? 0).toString(16)}`,
    );
  }

  #attach(dialect: Dialect): void {
    this.#cancelWait();
    const connection = this.#connection as Connection;
    this.#options.outbox.attach(dialect, (bytes) => connection.write(bytes));
  }

  #refuse(connection: Connection, error: OrchestratorError): void {
    const { source, quiet } = this.#options;
    source.received++;
    source.refused++;
    quiet.warn(`refused ${this.#id}`, "run", "ended the connection of an instance", {
      id: this.#id,
      error: messageChain(error).join(": "),
    });
    this.#closed(connection, "instance connection ended");
    connection.close();
  }

  #closed(connection: Connection, message: string): void {
    if (this.#connection !== connection) return;
    this.#cancelWait();
    this.#connection = undefined;
    this.#reader = undefined;
    this.#rest = undefined;
    this.#options.outbox.detach();
    this.#tell(message, false);
  }

  /**
   * An instance that connects again and again must fill neither the log nor the history: of what is
   * left out, only how it ends is told, a little later.
   */
  #tell(message: string, isConnected: boolean): void {
    const { quiet, connected, after } = this.#options;
    if (quiet.info(message, "run", message, { id: this.#id })) {
      if (this.#isTold !== isConnected) connected(isConnected);
      this.#isTold = isConnected;
    } else if (!this.#isTellingLater) {
      this.#isTellingLater = true;
      after(LOG_INTERVAL_MS, () => {
        this.#isTellingLater = false;
        const isNow = this.isConnected;
        if (isNow !== this.#isTold) this.#tell(`instance ${isNow ? "" : "dis"}connected`, isNow);
      });
    }
  }

  async #execute(value: unknown): Promise<unknown> {
    const { control, quiet } = this.#options;
    try {
      const request = decodeInstanceRequest(value);
      if (!(await control(request))) {
        quiet.warn(`control ${this.#id}`, "run", "refused a control request of an instance", {
          id: this.#id,
          error: "no control privileges",
        });
        return { Error: "no control privileges" };
      }
      return request.kind === "Start" ? "Started" : "Stopped";
    } catch (error) {
      return { Error: shorten(messageChain(error).join(": ").toWellFormed(), MAX_CONTROL_ERROR) };
    }
  }

  #send(kind: "hello" | "controlResponse", value: unknown): void {
    const json = JSON.stringify(value);
    const message =
      this.dialect === "native"
        ? encodeNative(KIND[kind], Buffer.alloc(0), Buffer.from(json))
        : Buffer.from(`{"ControlResponse":${json}}\n`);
    this.#options.outbox.send(message);
  }
}
