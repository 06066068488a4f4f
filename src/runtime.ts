// The library with which a TypeScript or JavaScript program becomes an instance.
//
//   const runtime = await connectRuntime();
//   runtime.onMessage("demo::Ping", (payload) => runtime.send("demo::Pong", payload));
//
// Speaks the native dialect, and reads the Veecle dialect too: until our first byte has arrived,
// an orchestrator may write lines. Sending never blocks: what the kernel does not take is queued,
// and `send` says when the queue is over its bound.

import { assert, OrchestratorError } from "./errors.ts";
import {
  MAX_FRAME_BYTES,
  MAX_NATIVE_FRAME_BYTES,
  MAX_QUEUE_BYTES,
  TYPE_TABLE_SLOTS,
} from "./limits.ts";
import { NEWLINE } from "./lines.ts";
import { FrameScanner, PREFIX_BYTES } from "./frame.ts";
import { encodeNative, HEADER_BYTES, KIND } from "./message.ts";
import { type InstanceId, type Priority, typeNameFault } from "./model.ts";
import { type Connection, connect } from "./socket.ts";

/**
 * Takes the payload of a message; the bytes are the handler's to keep. One that throws ends the
 * connection, and the program too, unless that handles uncaught exceptions.
 */
export type MessageHandler = (payload: Buffer, typeName: string) => void;

const NO_NAME = Buffer.alloc(0);

/** One connection of an instance to its orchestrator. */
export class Runtime {
  /** The id under which the orchestrator knows this instance. */
  readonly id: InstanceId;
  readonly #connection: Connection;
  readonly #handlers: Map<string, MessageHandler> = new Map();
  readonly #names: Map<string, Buffer> = new Map();
  readonly #decoded: Map<string, string> = new Map();
  #anyHandler: MessageHandler | undefined;
  readonly #responses: PromiseWithResolvers<void>[] = [];
  #onNotice: (typeName: string, notice: unknown) => void = () => {};
  #unsent: Buffer[] = [];
  #unsentBytes = 0;
  #wakeSent: PromiseWithResolvers<void> | undefined;
  #isGathering = false;
  #isClosed = false;
  readonly #closed: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly #frames: FrameScanner;
  #partialLine: Buffer = NO_NAME;
  #isNative = false;

  private constructor(id: InstanceId, connection: Connection) {
    this.id = id;
    this.#connection = connection;
    this.#frames = new FrameScanner(4, MAX_NATIVE_FRAME_BYTES, (chunk, _view, start, end) =>
      this.#frame(chunk, start, end),
    );
  }

  /**
   * Connects to the orchestrator that started this process.
   * @throws `not_configured` if none did, `unreachable` if it does not answer
   */
  static async connect(
    env: Readonly<Record<string, string | undefined>> = process.env,
  ): Promise<Runtime> {
    const path = env["VEECLE_IPC_SOCKET"];
    const id = env["VEECLE_RUNTIME_ID"];
    if (path === undefined || id === undefined) {
      throw new OrchestratorError(
        "not_configured",
        "Cannot connect to an orchestrator: VEECLE_IPC_SOCKET and VEECLE_RUNTIME_ID are not set",
        { hint: "let an orchestrator start this program: runtime add PROGRAM --start" },
      );
    }
    let runtime: Runtime | undefined;
    await connect(
      { kind: "unix", path },
      (connection) => {
        const opened = new Runtime(id, connection);
        runtime = opened;
        return {
          data: (chunk) => opened.#receive(chunk),
          drain: () => opened.#drain(),
          end: () => connection.close(),
          close: () => opened.#ended(),
        };
      },
      (error) => {
        // A handler of this program threw: its own defect, not to be hidden. Thrown here, Bun would
        // hand it to the socket, where errors are a peer's.
        queueMicrotask(() => {
          throw error;
        });
      },
    );
    assert(runtime !== undefined, "a connection without its runtime");
    runtime.#write(KIND.hello, NO_NAME, Buffer.from(JSON.stringify({ version: 1, id })));
    return runtime;
  }

  /** Settles when the connection has ended. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Handles messages of one type, or of every other type with `"*"`; a second handler replaces the first. */
  onMessage(typeName: string, handler: MessageHandler): void {
    if (typeName === "*") this.#anyHandler = handler;
    else this.#handlers.set(typeName, handler);
  }

  /** Hears that messages of this instance, or for it, were dropped. */
  onNotice(handler: (typeName: string, notice: unknown) => void): void {
    this.#onNotice = handler;
  }

  /**
   * Sends a message. Text is sent as UTF-8, any other value that is not bytes as JSON.
   * @returns false if more than `MAX_QUEUE_BYTES` wait: `await sent()` before sending more; or if
   * the connection has ended: nothing is sent any more
   * @throws `bad_request` or `limit_exceeded` for what would cost us the connection
   */
  send(typeName: string, payload: unknown): boolean {
    const name = this.#names.get(typeName) ?? this.#encodeName(typeName);
    const bytes =
      payload instanceof Uint8Array
        ? payload
        : Buffer.from(typeof payload === "string" ? payload : JSON.stringify(payload));
    return this.#write(KIND.data, name, bytes);
  }

  /** @throws `bad_request` if it is no type name */
  #encodeName(typeName: string): Buffer {
    const fault = typeNameFault(typeName);
    if (fault !== undefined) {
      throw new OrchestratorError(
        "bad_request",
        `Cannot send: the type name cannot be used: ${fault}`,
      );
    }
    const name = Buffer.from(typeName);
    if (this.#names.size >= TYPE_TABLE_SLOTS) this.#names.clear();
    this.#names.set(typeName, name);
    return name;
  }

  /**
   * Reports telemetry: one JSON object, which the telemetry server gets as it is.
   * @throws `limit_exceeded` for what would cost us the connection
   */
  telemetry(message: object): boolean {
    return this.#write(KIND.telemetry, NO_NAME, Buffer.from(JSON.stringify(message)));
  }

  /** Settles when everything is handed to the kernel. @throws `unreachable` if the connection has ended */
  async sent(): Promise<void> {
    if (this.#isClosed) throw ended();
    if (this.#unsentBytes === 0) return;
    this.#wakeSent ??= Promise.withResolvers();
    await this.#wakeSent.promise;
  }

  /** Starts another instance. @throws what the orchestrator answers, such as `no control privileges` */
  async start(id: InstanceId, priority: Priority | null = null): Promise<void> {
    await this.#request({ StartRuntime: { id, priority } });
  }

  /** Stops an instance, perhaps this one: the answer then never comes. @throws as `start` */
  async stop(id: InstanceId): Promise<void> {
    await this.#request({ StopRuntime: { id } });
  }

  /** Ends the connection after everything is sent. @throws `unreachable` if it ends before that */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    await this.sent();
    this.#connection.finish();
    await this.closed;
  }

  #request(request: object): Promise<void> {
    if (this.#isClosed) return Promise.reject(ended());
    const response = Promise.withResolvers<void>();
    this.#responses.push(response);
    this.#write(KIND.controlRequest, NO_NAME, Buffer.from(JSON.stringify(request)));
    return response.promise;
  }

  #write(kind: number, name: Buffer, payload: Uint8Array): boolean {
    if (this.#isClosed) return false;
    const size = HEADER_BYTES - PREFIX_BYTES + name.length + payload.length;
    if (size > MAX_FRAME_BYTES) {
      throw new OrchestratorError(
        "limit_exceeded",
        `Cannot send: the frame would have ${size} bytes, more than ${MAX_FRAME_BYTES}`,
      );
    }
    const frame = encodeNative(kind, name, payload);
    this.#unsent.push(frame);
    this.#unsentBytes += frame.length;
    if (!this.#isGathering) {
      this.#isGathering = true;
      queueMicrotask(() => this.#drain());
    }
    return this.#unsentBytes <= MAX_QUEUE_BYTES;
  }

  /** Frames of one turn leave in one write. */
  #drain(): void {
    if (this.#isClosed) return;
    while (this.#unsent.length > 0) {
      const bytes =
        this.#unsent.length === 1 ? (this.#unsent[0] as Buffer) : Buffer.concat(this.#unsent);
      const taken = this.#connection.write(bytes);
      this.#unsentBytes -= taken;
      this.#unsent = taken < bytes.length ? [bytes.subarray(taken)] : [];
      this.#isGathering = taken < bytes.length; // `drain` comes when the kernel has room
      if (this.#isGathering) return;
    }
    this.#wakeSent?.resolve();
    this.#wakeSent = undefined;
  }

  /** Lines until the first byte of a frame, with which no line begins; frames from then on. */
  #receive(chunk: Buffer): void {
    if (this.#isNative) {
      this.#frames.push(chunk);
      return;
    }
    const bytes = this.#partialLine.length > 0 ? Buffer.concat([this.#partialLine, chunk]) : chunk;
    let line = 0;
    while (line < bytes.length) {
      if (bytes[line] === 0) {
        this.#isNative = true;
        this.#partialLine = NO_NAME;
        this.#frames.push(bytes.subarray(line));
        return;
      }
      const next = bytes.indexOf(NEWLINE, line) + 1;
      if (next === 0) break;
      const { Storable } = JSON.parse(bytes.toString("utf8", line, next));
      if (Storable !== undefined) this.#deliver(Storable.type_name, Buffer.from(Storable.value));
      line = next;
    }
    this.#partialLine = bytes.subarray(line);
  }

  #frame(chunk: Buffer, start: number, end: number): void {
    const payload = start + HEADER_BYTES + chunk.readUInt16BE(start + 6);
    const name = chunk.toString("latin1", start + HEADER_BYTES, payload);
    switch (chunk[start + 4]) {
      case KIND.data:
        return this.#deliver(this.#text(name), chunk.subarray(payload, end));
      case KIND.controlResponse:
        return this.#respond(JSON.parse(chunk.toString("utf8", payload, end)));
      case KIND.notice:
        return this.#onNotice(this.#text(name), JSON.parse(chunk.toString("utf8", payload, end)));
      default: // the answer to our hello, and kinds of later versions
    }
  }

  /** The text of a name whose bytes are given one a character; names come again and again. */
  #text(bytes: string): string {
    let text = this.#decoded.get(bytes);
    if (text === undefined) {
      text = Buffer.from(bytes, "latin1").toString();
      if (this.#decoded.size >= TYPE_TABLE_SLOTS) this.#decoded.clear();
      this.#decoded.set(bytes, text);
    }
    return text;
  }

  #deliver(typeName: string, payload: Buffer): void {
    (this.#handlers.get(typeName) ?? this.#anyHandler)?.(payload, typeName);
  }

  #respond(response: unknown): void {
    const waiting = this.#responses.shift();
    const error = (response as { Error?: unknown } | null)?.Error;
    if (error === undefined) waiting?.resolve();
    else waiting?.reject(new OrchestratorError("permission_denied", String(error)));
  }

  #ended(): void {
    this.#isClosed = true;
    this.#unsent = [];
    this.#closed.resolve();
    this.#wakeSent?.reject(ended());
    for (const { reject } of this.#responses) reject(ended());
  }
}

function ended(): OrchestratorError {
  return new OrchestratorError("unreachable", "The orchestrator closed the connection");
}

/** Connects to the orchestrator that started this process. @throws as `Runtime.connect` */
export function connectRuntime(): Promise<Runtime> {
  return Runtime.connect();
}
