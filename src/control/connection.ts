// One control connection: requests one after the other, uploads, a stream at the end.
//
//   bytes ──► intake ──► serve(): one item at a time ──► orchestrator ──► commit ──► response
//
// Every request is answered, in order, and no change before it is durable: those that came together
// share a commit. While too much waits to be answered, nothing more is read.

import { otherMachine, type Verdict } from "./access.ts";
import { Answers } from "./answers.ts";
import type { Binaries, Upload } from "../store/binaries.ts";
import { messageChain, OrchestratorError } from "../errors.ts";
import { encodeFrame } from "../frame.ts";
import { Intake, type UploadRequest } from "./intake.ts";
import { CONTROL_TURN_MS, FIRST_REQUEST_MS, UPLOAD_IDLE_MS } from "../limits.ts";
import { NEWLINE } from "../lines.ts";
import type { TargetLog } from "../log.ts";
import type { Batch } from "../memory.ts";
import type { Orchestrator } from "../orchestrator.ts";
import { Follower } from "../output.ts";
import { EventStream, OutputStream, type Stream } from "./stream.ts";
import {
  describeRequest,
  encodeError,
  encodeOk,
  type JsonPieces,
  PROTOCOL_VERSION,
  type Request,
} from "../protocol.ts";
import type { Connection } from "../socket.ts";

export interface ConnectionOptions {
  readonly orchestrator: Orchestrator;
  readonly log: TargetLog;
  /** Gets a record of every change that somebody asks for. */
  readonly audit: TargetLog;
  readonly binaries: Binaries;
  after(ms: number, action: () => void): () => void;
  /** Milliseconds on a clock that is never set. */
  now(): number;
  readonly onFault: (error: unknown) => void;
}

/** Requests whose answer promises something about the future: it must be durable. */
const CHANGES: ReadonlySet<Request["kind"]> = new Set<Request["kind"]>([
  "Add",
  "AddWithBinary",
  "Update",
  "Remove",
  "Start",
  "Stop",
  "Link",
  "Unlink",
  "Clear",
]);

/** Of these, the ones that are answered later than those behind them might be. */
const TAKES_TIME: ReadonlySet<Request["kind"]> = new Set(["Stop", "Clear", "AddWithBinary"]);

/** What was carried out; `batch` holds changes that are not durable yet, if there are any. */
interface Outcome {
  readonly value: unknown;
  readonly batch?: Batch;
}

/** Why a change that was carried out is refused all the same: it cannot be kept. */
function unkept(request: Request, error: OrchestratorError): OrchestratorError {
  if (request.kind !== "Stop") return error;
  return new OrchestratorError(
    "io",
    `Instance "${request.id}" is stopped, but that cannot be remembered`,
    { cause: error.cause },
  );
}

/** One connection: its requests in order, their answers, perhaps a stream at the end. */
export class ControlConnection {
  readonly #options: ConnectionOptions;
  readonly #connection: Connection;
  readonly #id: number;
  readonly #intake: Intake;
  /** Whether it has ever sent a request, understood or not. */
  hasAsked = false;
  #isClosed = false;
  readonly #answers: Answers;
  #isFinishing = false;
  #stream: Stream | undefined;
  /** The request for the stream is answered: its items may follow. */
  #isStreaming = false;
  #cancelFirst: () => void;
  readonly #by: string;
  /** Until it has sent the token, what compares with it. */
  #isToken: ((text: string) => boolean) | undefined;

  constructor(
    options: ConnectionOptions,
    connection: Connection,
    id: number,
    verdict: Exclude<Verdict, { kind: "refused" }>,
  ) {
    this.#by = verdict.by;
    this.#isToken = verdict.kind === "locked" ? verdict.isToken : undefined;
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
      onRequest: () => {
        this.hasAsked = true;
        this.#cancelFirst();
      },
      after: options.after,
    });
    const onFault = (error: unknown): void => {
      options.onFault(error);
      connection.close();
    };
    this.#answers = new Answers({
      connection,
      isNative: () => this.#intake.dialect === "native",
      commit: () => options.orchestrator.commit(),
      onIdle: () => this.#wentOut(),
      onFault,
    });
    this.#serve().catch(onFault);
  }

  receive(chunk: Buffer): void {
    if (this.#isClosed || this.#stream !== undefined || this.#intake.push(chunk)) return;
    this.#options.log.warn("run:connection", "closing a connection of no known dialect", {
      "connection.id": this.#id,
      "connection.peer": this.#connection.peer,
      first_byte: chunk[0],
    });
    this.#connection.close();
  }

  /** The client sends no more; what it has sent is still answered. */
  endInput(): void {
    this.#intake.finish();
  }

  drain(): void {
    this.#answers.drain();
  }

  /** Ends a connection that has not asked for anything, with the reason. */
  displace(reason: OrchestratorError): void {
    this.#connection.write(Buffer.from(`${encodeError(reason, false)}\n`));
    this.#connection.close();
  }

  /** Ends the connection when everything is sent. */
  finish(): void {
    this.#isFinishing = true;
    if (this.#answers.isIdle) this.#connection.finish();
  }

  #wentOut(): void {
    this.#pumpStream();
    if (this.#isFinishing && this.#answers.isIdle) this.#connection.finish();
  }

  closed(): void {
    this.#isClosed = true;
    this.#cancelFirst();
    this.#stream?.close();
    this.#intake.abandon();
    this.#answers.close();
    this.#options.log.debug("run:connection", "connection closed", { "connection.id": this.#id });
  }

  async #serve(): Promise<void> {
    const { now } = this.#options;
    let turnEnd = now() + CONTROL_TURN_MS;
    for (;;) {
      const isIdle = !this.#intake.isReady;
      if (isIdle || this.#answers.isFull) this.#answers.settle();
      if (!isIdle && now() > turnEnd) {
        await this.#nextTurn(); // however much a client sends at once, others have theirs in between
        turnEnd = now() + CONTROL_TURN_MS;
      }
      const item = await this.#intake.take();
      if (isIdle) turnEnd = now() + CONTROL_TURN_MS;
      if (item === undefined) break;
      if (item.kind === "fault" && this.#isToken !== undefined) this.#turnAway("unreadable");
      else if (item.kind === "fault") {
        this.#answers.hold(() => this.#refusal("unreadable", item.error), false);
      } else if (item.kind === "request") await this.#handle(item.request);
      if (item.kind === "fault" && item.isFatal) break;
      if (this.#isFinishing) {
        this.#answers.settle();
        return;
      }
      if (this.#stream !== undefined) return;
      if (this.#answers.isBehind) await this.#answers.idle();
    }
    this.#answers.settle();
    if (!this.#isClosed) this.finish();
  }

  async #handle(request: Request): Promise<void> {
    const { log } = this.#options;
    const parsed = describeRequest(request);
    log.debug("run:connection:handle_request", "handling request", {
      "connection.id": this.#id,
      "request.parsed": parsed,
    });
    if (this.#isToken !== undefined && !this.#unlock(request, parsed)) return;
    const isChange = CHANGES.has(request.kind);
    // Only changes at once are gathered: answers must not wait for what takes its time.
    if (!isChange || TAKES_TIME.has(request.kind)) this.#answers.settle();
    try {
      const { value, batch } = await this.#execute(request);
      // Stops on several connections that end by one look at all processes share a commit.
      if (request.kind === "Stop") await this.#nextTurn();
      const answer = (): string | JsonPieces => {
        if (batch?.error !== undefined)
          return this.#refusal(parsed, unkept(request, batch.error), isChange);
        // What is more than a word is long, or secret.
        const shown = value === null || typeof value === "string" ? JSON.stringify(value) : "…";
        log.info("run:connection:handle_request", "processed request", {
          "connection.id": this.#id,
          "request.parsed": parsed,
          response: `Ok(${shown})`,
        });
        if (isChange) this.#audit(parsed, "done");
        return encodeOk(value);
      };
      this.#answers.hold(answer, isChange);
    } catch (error) {
      this.#answers.hold(() => this.#refusal(parsed, error, isChange), false);
    }
    if (!isChange) this.#answers.settle();
    if (this.#stream === undefined) return;
    await this.#answers.idle();
    this.#isStreaming = true;
    this.#pumpStream();
  }

  /** Whether a client from elsewhere has shown the token; one that has not is sent away. */
  #unlock(request: Request, parsed: string): boolean {
    if (request.kind === "Token" && this.#isToken?.(request.token) === true) {
      this.#isToken = undefined;
      return true;
    }
    this.#turnAway(parsed, request.kind === "Token" ? "the token is another one" : undefined);
    return false;
  }

  /** The end of a client that has not shown the token; nothing else of it is read. */
  #turnAway(parsed: string, reason: string = "it needs a token first"): void {
    const error = new OrchestratorError(
      "permission_denied",
      `Cannot serve this connection: ${reason}`,
    );
    this.#answers.hold(() => this.#refusal(parsed, error), false);
    this.#answers.settle();
    this.#intake.end();
    this.finish();
  }

  async #execute(request: Request): Promise<Outcome> {
    const { orchestrator } = this.#options;
    switch (request.kind) {
      case "Version":
        return { value: PROTOCOL_VERSION };
      case "Token":
        return { value: null };
      case "Info":
        return { value: orchestrator.info() };
      case "Resources":
        return { value: await orchestrator.resources(request.ids) };
      case "Clear":
        return { value: null, batch: await orchestrator.clear() };
      case "Add":
        orchestrator.add(request.id, request.path, request.settings);
        return { value: null, batch: orchestrator.batch };
      case "AddWithBinary":
        await this.#upload(request);
        return { value: null };
      case "Update":
        orchestrator.update(request.id, request.path, request.settings);
        return { value: null, batch: orchestrator.batch };
      case "Environment":
        return { value: orchestrator.environment(request.id) };
      case "Sent":
        return { value: orchestrator.hasSent(request.id, request.typeName) };
      case "Remove":
        return { value: null, batch: orchestrator.remove(request.id) };
      case "Start":
        return { value: null, batch: await orchestrator.start(request.id, request.priority) };
      case "Stop":
        return { value: null, batch: await orchestrator.stop(request.id) };
      case "Link":
        orchestrator.links.add(request.link, request.settings);
        return { value: null, batch: orchestrator.batch };
      case "Unlink":
        return { value: null, batch: orchestrator.links.remove(request.link) };
      case "Stdout": {
        const follower = new Follower(() => this.#pumpStream());
        const unfollow = orchestrator.follow(request.id, follower);
        this.#stream = {
          take: () => follower.take(),
          isEnded: () => follower.isEnded,
          close: unfollow,
        };
        return { value: null };
      }
      case "Output":
        this.#stream = new OutputStream(
          orchestrator.outputs(request.query.ids),
          request.query,
          () => this.#pumpStream(),
          this.#options.onFault,
        );
        return { value: null };
      case "Events":
        this.#stream = new EventStream(orchestrator.journal, request.query, () =>
          this.#pumpStream(),
        );
        return { value: null };
    }
  }

  /** Takes the announced bytes to their end, whatever becomes of them, then adds the instance. */
  async #upload(request: UploadRequest): Promise<void> {
    const { orchestrator, binaries } = this.#options;
    const { id, settings, hash, length, replace } = request;
    const subject = `Cannot ${replace === true ? "change" : "add"} instance "${id}"`;
    await this.#answers.idle();
    this.#answers.sendNow(encodeOk(null));
    let upload: Upload | undefined;
    let fault: unknown;
    let isUsed = false;
    try {
      if (replace === true) orchestrator.checkKnown(id);
      else orchestrator.checkNew(id, settings.name);
      upload = await binaries.receive(otherMachine(this.#connection.origin));
    } catch (error) {
      fault = error;
    }
    try {
      for (let left = length; left > 0;) {
        const item = await this.#intake.take(UPLOAD_IDLE_MS);
        if (item?.kind !== "raw") {
          const cause = item?.kind === "fault" ? item.error : undefined;
          this.#intake.end();
          throw new OrchestratorError(
            "upload_failed",
            `${subject}: the upload ended ${left} bytes before its announced length of ${length}`,
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
      if ((await upload?.finish(hash)) !== true) {
        throw new OrchestratorError(
          "upload_failed",
          `${subject}: the uploaded bytes do not have the announced hash`,
        );
      }
      const uploaded = { hash, bytes: length, origin: request.path ?? "upload" };
      if (replace === true) orchestrator.update(id, binaries.path(hash), settings, uploaded);
      else orchestrator.add(id, binaries.path(hash), settings, uploaded);
      const { batch } = orchestrator;
      await orchestrator.commit(); // the file must not be collected before
      if (batch.error !== undefined) throw batch.error;
      isUsed = replace !== true; // else nobody uses the one before any more
    } catch (error) {
      if (error instanceof OrchestratorError) throw error;
      throw new OrchestratorError("upload_failed", `${subject}: the upload cannot be stored`, {
        cause: error,
      });
    } finally {
      await upload?.close();
      if (!isUsed) void orchestrator.collect();
    }
  }

  /** The answer to a request that was not carried out; says so in the log. */
  #refusal(parsed: string, error: unknown, isChange: boolean = false): string {
    if (!(error instanceof OrchestratorError) || error.code === "internal") {
      this.#options.onFault(error);
    }
    this.#options.log.warn("run:connection:handle_request", "refused request", {
      "connection.id": this.#id,
      "request.parsed": parsed,
      error: messageChain(error).join(": "),
    });
    if (isChange) this.#audit(parsed, `refused: ${messageChain(error).join(": ")}`);
    return encodeError(error, this.#intake.dialect === "native");
  }

  /** Who has asked for a change, and what became of it. */
  #audit(request: string, result: string): void {
    const fields = { by: this.#by, "connection.id": this.#id, request, result };
    this.#options.audit.info("run:connection", "change asked for", fields);
  }

  #nextTurn(): Promise<void> {
    return new Promise((resolve) => void this.#options.after(0, resolve));
  }

  /** Sends items as long as the kernel takes them; what waits is bounded by the stream. */
  #pumpStream(): void {
    const stream = this.#stream;
    if (stream === undefined || !this.#isStreaming || this.#isFinishing) return;
    while (this.#answers.isIdle) {
      const region = stream.take();
      if (region === undefined) {
        if (stream.isEnded()) this.finish();
        return;
      }
      this.#answers.send(this.#intake.dialect === "native" ? frameLines(region) : region);
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
