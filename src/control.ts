// Server side of the control socket: connections, one request after the other, uploads, streams.
//
//   bytes ──► intake ──► serve(): one item at a time ──► orchestrator ──► response
//
// Every request is answered, in order; what cannot be sent yet waits here, and then nothing more is read.

import { messageChain, OrchestratorError } from "./errors.ts";
import { Upload } from "./files.ts";
import { encodeFrame } from "./frame.ts";
import { Intake, type UploadRequest } from "./intake.ts";
import {
  FIRST_REQUEST_MS,
  MAX_CONTROL_CONNECTIONS,
  MAX_RESPONSE_BACKLOG_BYTES,
  UPLOAD_IDLE_MS,
} from "./limits.ts";
import { NEWLINE } from "./lines.ts";
import type { TargetLog } from "./log.ts";
import type { Orchestrator } from "./orchestrator.ts";
import { Follower } from "./output.ts";
import {
  describeRequest,
  encodeError,
  encodeOk,
  PROTOCOL_VERSION,
  type Request,
} from "./protocol.ts";
import { type Connection, DISCARD, type StreamHandlers } from "./socket.ts";

export interface ControlOptions {
  readonly orchestrator: Orchestrator;
  readonly log: TargetLog;
  /** Where uploads are written. */
  readonly folder: string;
  after(ms: number, action: () => void): () => void;
  readonly onFault: (error: unknown) => void;
}

/** Accepts control connections, up to a limit. */
export class ControlServer {
  readonly #options: ControlOptions;
  readonly #open: Set<ControlConnection> = new Set();
  #nextId = 0;

  constructor(options: ControlOptions) {
    this.#options = options;
  }

  accept(connection: Connection): StreamHandlers {
    if (this.#open.size >= MAX_CONTROL_CONNECTIONS) {
      const refusal = new OrchestratorError(
        "limit_exceeded",
        `Cannot accept connection: ${MAX_CONTROL_CONNECTIONS} are open, which is the limit; try again later`,
      );
      connection.write(Buffer.from(`${encodeError(refusal, false)}\n`));
      connection.finish();
      return DISCARD;
    }
    const control = new ControlConnection(this.#options, connection, this.#nextId++);
    this.#open.add(control);
    return {
      data: (chunk) => control.receive(chunk),
      drain: () => control.drain(),
      end: () => control.endInput(),
      close: () => {
        this.#open.delete(control);
        control.closed();
      },
    };
  }

  /** Ends every connection, after the responses that are still unsent. */
  close(): void {
    for (const control of this.#open) control.finish();
  }
}

class ControlConnection {
  readonly #options: ControlOptions;
  readonly #connection: Connection;
  readonly #id: number;
  readonly #intake: Intake;
  #isClosed = false;
  #unsent: Buffer[] = [];
  #unsentBytes = 0;
  #wakeSent: (() => void) | undefined;
  #isFinishing = false;
  #stopStream: (() => void) | undefined;
  #follower: Follower | undefined;
  /** The request for the stream is answered: its items may follow. */
  #isStreaming = false;
  #uploads = 0;
  #cancelFirst: () => void;

  constructor(options: ControlOptions, connection: Connection, id: number) {
    this.#options = options;
    this.#connection = connection;
    this.#id = id;
    options.log.debug("run:connection", "handling new connection", {
      "connection.id": id,
      "connection.peer": connection.peer,
    });
    this.#cancelFirst = options.after(FIRST_REQUEST_MS, () => {
      options.log.warn("run:connection", "closing a connection without a request", {
        "connection.id": id,
      });
      connection.close();
    });
    this.#intake = new Intake({
      pause: () => connection.pause(),
      resume: () => connection.resume(),
      onRequest: () => this.#cancelFirst(),
      after: options.after,
    });
    this.#serve().catch((error) => {
      options.onFault(error);
      connection.close();
    });
  }

  receive(chunk: Buffer): void {
    if (this.#isClosed || this.#follower !== undefined || this.#intake.push(chunk)) return;
    this.#options.log.warn("run:connection", "closing a connection of no known dialect", {
      "connection.id": this.#id,
      "connection.peer": this.#connection.peer,
      first_byte: chunk[0],
    });
    this.#connection.close();
  }

  /** The client sends no more; what it has sent is still answered. */
  endInput(): void {
    this.#intake.end();
  }

  drain(): void {
    while (this.#unsent.length > 0) {
      const [bytes] = this.#unsent as [Buffer];
      const taken = this.#connection.write(bytes);
      this.#unsentBytes -= taken;
      if (taken < bytes.length) {
        this.#unsent[0] = bytes.subarray(taken);
        return;
      }
      this.#unsent.shift();
    }
    this.#wakeSent?.();
    this.#pumpStream();
    if (this.#isFinishing) this.#connection.finish();
  }

  /** Ends the connection when everything is sent. */
  finish(): void {
    this.#isFinishing = true;
    if (this.#unsent.length === 0) this.#connection.finish();
  }

  closed(): void {
    this.#isClosed = true;
    this.#cancelFirst();
    this.#stopStream?.();
    this.#intake.abandon();
    this.#wakeSent?.();
    this.#options.log.debug("run:connection", "connection closed", { "connection.id": this.#id });
  }

  async #serve(): Promise<void> {
    for (;;) {
      const item = await this.#intake.take();
      if (item === undefined) break;
      if (item.kind === "fault") this.#respondError("unreadable", item.error);
      else if (item.kind === "request") await this.#handle(item.request);
      if (item.kind === "fault" && item.isFatal) break;
      if (this.#follower !== undefined) return;
      if (this.#unsentBytes > MAX_RESPONSE_BACKLOG_BYTES) await this.#allSent();
    }
    if (!this.#isClosed) this.finish();
  }

  async #handle(request: Request): Promise<void> {
    const { log } = this.#options;
    const parsed = describeRequest(request);
    log.debug("run:connection:handle_request", "handling request", {
      "connection.id": this.#id,
      "request.parsed": parsed,
    });
    try {
      const value = await this.#execute(request);
      log.info("run:connection:handle_request", "processed request", {
        "connection.id": this.#id,
        "request.parsed": parsed,
        response: request.kind === "Info" ? "Ok(…)" : `Ok(${JSON.stringify(value)})`,
      });
      this.#respond(encodeOk(value));
      this.#isStreaming = this.#follower !== undefined;
      this.#pumpStream();
    } catch (error) {
      this.#respondError(parsed, error);
    }
  }

  async #execute(request: Request): Promise<unknown> {
    const { orchestrator } = this.#options;
    switch (request.kind) {
      case "Version":
        return PROTOCOL_VERSION;
      case "Info":
        return orchestrator.info();
      case "Clear":
        await orchestrator.clear();
        return null;
      case "Add":
        orchestrator.add(request.id, request.path, request.privileged);
        return null;
      case "AddWithBinary":
        await this.#upload(request);
        return null;
      case "Remove":
        orchestrator.remove(request.id);
        return null;
      case "Start":
        orchestrator.start(request.id, request.priority);
        return null;
      case "Stop":
        await orchestrator.stop(request.id);
        return null;
      case "Link":
        orchestrator.link(request.link, request.settings);
        return null;
      case "Unlink":
        orchestrator.unlink(request.link);
        return null;
      case "Stdout": {
        const follower = new Follower(() => this.#pumpStream());
        this.#stopStream = orchestrator.follow(request.id, follower);
        this.#follower = follower;
        return null;
      }
    }
  }

  /** Takes the announced bytes to their end, whatever becomes of them, then adds the instance. */
  async #upload(request: UploadRequest): Promise<void> {
    const { orchestrator, folder } = this.#options;
    const subject = `Cannot add instance "${request.id}"`;
    this.#respond(encodeOk(null));
    let upload: Upload | undefined;
    let fault: unknown;
    try {
      orchestrator.checkNew(request.id);
      upload = await Upload.create(folder, `${request.id}-${this.#id}-${this.#uploads++}.bin`);
    } catch (error) {
      fault = error;
    }
    try {
      for (let left = request.length; left > 0;) {
        const item = await this.#intake.take(UPLOAD_IDLE_MS);
        if (item?.kind !== "raw") {
          const cause = item?.kind === "fault" ? item.error : undefined;
          this.#intake.end();
          throw new OrchestratorError(
            "upload_failed",
            `${subject}: the upload ended ${left} bytes before its announced length of ${request.length}`,
            { cause },
          );
        }
        left -= item.bytes.length;
        if (fault !== undefined) continue;
        await upload?.write(item.bytes).catch((error: unknown) => {
          fault = error;
        });
      }
      if (fault !== undefined) throw fault;
      if ((await upload?.finish()) !== request.hash) {
        throw new OrchestratorError(
          "upload_failed",
          `${subject}: the uploaded bytes do not have the announced hash`,
        );
      }
      orchestrator.add(request.id, (upload as Upload).path, request.privileged, true);
    } catch (error) {
      await upload?.discard();
      if (error instanceof OrchestratorError) throw error;
      throw new OrchestratorError("upload_failed", `${subject}: the upload cannot be stored`, {
        cause: error,
      });
    }
  }

  #respondError(parsed: string, error: unknown): void {
    if (!(error instanceof OrchestratorError) || error.code === "internal") {
      this.#options.onFault(error);
    }
    this.#options.log.warn("run:connection:handle_request", "refused request", {
      "connection.id": this.#id,
      "request.parsed": parsed,
      error: messageChain(error).join(": "),
    });
    this.#respond(encodeError(error, this.#intake.dialect === "native"));
  }

  #respond(json: string): void {
    this.#send(this.#intake.dialect === "native" ? encodeFrame(json) : Buffer.from(`${json}\n`));
  }

  #send(bytes: Buffer): void {
    if (this.#isClosed) return;
    const taken = this.#unsent.length > 0 ? 0 : this.#connection.write(bytes);
    if (taken === bytes.length) return;
    this.#unsent.push(bytes.subarray(taken));
    this.#unsentBytes += bytes.length - taken;
  }

  async #allSent(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wakeSent = resolve;
    if (!this.#isClosed && this.#unsent.length > 0) await promise;
    this.#wakeSent = undefined;
  }

  /** Sends output as long as the kernel takes it; what waits is bounded by the follower. */
  #pumpStream(): void {
    const follower = this.#follower;
    if (follower === undefined || !this.#isStreaming || this.#isFinishing) return;
    while (this.#unsent.length === 0) {
      const region = follower.take();
      if (region === undefined) {
        if (follower.isEnded) this.finish();
        return;
      }
      this.#send(this.#intake.dialect === "native" ? frameLines(region) : region);
    }
  }
}

/** Each line of a region of whole lines as one frame, without its newline. */
function frameLines(region: Buffer): Buffer {
  const frames: Buffer[] = [];
  for (let line = 0; line < region.length;) {
    const newline = region.indexOf(NEWLINE, line);
    frames.push(encodeFrame(region.subarray(line, newline)));
    line = newline + 1;
  }
  return Buffer.concat(frames);
}
