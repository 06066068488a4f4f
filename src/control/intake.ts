// What a client sends on a control connection, as items: requests, faults, raw bytes of uploads.
//
//   bytes ──► scanner ──► item ──► take(), one after the other
//
// The scanner needs no answer to go on: a well-formed `AddWithBinary` is always followed by the bytes
// that it announces, and these are taken as bytes whatever becomes of the upload. So nothing that a
// client uploads can ever be read as a request. Items that wait are bounded: then nothing is read.

import { isUtf8 } from "node:buffer";

import { OrchestratorError } from "../errors.ts";
import { FrameScanner, PREFIX_BYTES } from "../frame.ts";
import { structureFault } from "../json.ts";
import { MAX_PIPELINED_BYTES, MAX_REQUEST_BYTES } from "../limits.ts";
import { LineScanner, lineTextEnd, NEWLINE } from "../lines.ts";
import type { Dialect } from "../message.ts";
import { decodeRequest, type Request } from "../protocol.ts";

export type UploadRequest = Request & { kind: "AddWithBinary" };

/** What a client has sent. */
export type Item =
  | { readonly kind: "request"; readonly request: Request }
  /** `isFatal`: the stream cannot be read any further. */
  | { readonly kind: "fault"; readonly error: unknown; readonly isFatal: boolean }
  | { readonly kind: "raw"; readonly bytes: Buffer };

const LINE_END = Buffer.from("\n");

/** Bookkeeping of one waiting item, in bytes. */
const ITEM_BYTES = 256;

export interface IntakeOptions {
  /** Stops or goes on reading from the client. */
  pause(): void;
  resume(): void;
  /** Something came that is a request, understood or not. */
  onRequest(): void;
  after(ms: number, action: () => void): () => void;
}

/** Reads one control connection. */
export class Intake {
  readonly #options: IntakeOptions;
  #dialect: Dialect | undefined;
  #scan: (chunk: Buffer) => void = () => {};
  /** Whether the client owes the newline of a line that it has begun. */
  #isWithinLine: () => boolean = () => false;
  /** Raw bytes that native frames still owe to an upload. */
  #rawBytes = 0;
  readonly #items: Item[] = [];
  #itemBytes = 0;
  #isPaused = false;
  /** No more items come: the client ended its side, or the stream cannot be read. */
  #isEnded = false;
  #wake: (() => void) | undefined;

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  /** The dialect, once the first byte has told. */
  get dialect(): Dialect | undefined {
    return this.#dialect;
  }

  /** Whether the next item is there already. */
  get isReady(): boolean {
    return this.#items.length > 0;
  }

  /** Takes bytes; false if the first one belongs to no dialect. */
  push(chunk: Buffer): boolean {
    if (this.#isEnded) return true;
    if (this.#dialect === undefined && !this.#open(chunk[0] as number)) return false;
    try {
      this.#scan(chunk);
    } catch (error) {
      if (!(error instanceof OrchestratorError)) throw error;
      this.#put({ kind: "fault", error, isFatal: true }, 0);
      this.end();
    }
    return true;
  }

  /** The client sends no more: its last line may lack the newline, as with `printf … | socat`. */
  finish(): void {
    if (this.#isWithinLine()) this.push(LINE_END);
    this.end();
  }

  /** Nothing more comes, or is looked at; what has come can still be taken. */
  end(): void {
    this.#isEnded = true;
    this.#wake?.();
  }

  /** Forgets what has come: there is nobody to answer to. */
  abandon(): void {
    this.#items.length = 0;
    this.end();
  }

  /** The next item, or undefined when there will be none (or none within `timeoutMs`). */
  async take(timeoutMs?: number): Promise<Item | undefined> {
    if (this.#items.length === 0 && !this.#isEnded) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const cancel = timeoutMs === undefined ? () => {} : this.#options.after(timeoutMs, resolve);
      await promise;
      cancel();
      this.#wake = undefined;
    }
    const item = this.#items.shift();
    if (item === undefined) return undefined;
    this.#itemBytes -= ITEM_BYTES + (item.kind === "raw" ? item.bytes.length : 0);
    if (this.#items.length === 0) this.#itemBytes = 0;
    if (this.#isPaused && this.#itemBytes < MAX_PIPELINED_BYTES / 2) {
      this.#isPaused = false;
      this.#options.resume();
    }
    return item;
  }

  #put(item: Item, bytes: number): void {
    if (this.#isEnded) return;
    this.#items.push(item);
    this.#itemBytes += bytes + ITEM_BYTES;
    if (this.#itemBytes > MAX_PIPELINED_BYTES && !this.#isPaused) {
      this.#isPaused = true;
      this.#options.pause();
    }
    this.#wake?.();
  }

  /** The first byte decides; false if it belongs to no dialect. */
  #open(first: number): boolean {
    if (first === 0) {
      this.#dialect = "native";
      const scanner = new FrameScanner(0, MAX_REQUEST_BYTES, (chunk, _view, start, end) =>
        this.#frame(chunk.subarray(start + PREFIX_BYTES, end)),
      );
      this.#scan = (chunk) => scanner.push(chunk);
    } else if (first === 0x7b || first === 0x22) {
      this.#dialect = "veecle";
      const scanner: LineScanner = new LineScanner(MAX_REQUEST_BYTES, (chunk, start, end) =>
        this.#lines(scanner, chunk, start, end),
      );
      this.#scan = (chunk) => scanner.push(chunk);
      this.#isWithinLine = () => scanner.pendingBytes > 0;
    } else return false;
    return true;
  }

  #frame(body: Buffer): void {
    if (this.#rawBytes === 0) {
      const upload = this.#decode(body);
      if (upload !== undefined) this.#rawBytes = upload.length;
      return;
    }
    if (body.length > this.#rawBytes) {
      throw new OrchestratorError(
        "upload_failed",
        `Cannot read upload: a frame has ${body.length} bytes, and ${this.#rawBytes} are missing`,
      );
    }
    this.#rawBytes -= body.length;
    this.#put({ kind: "raw", bytes: body }, body.length);
  }

  #lines(scanner: LineScanner, chunk: Buffer, start: number, end: number): number {
    for (let line = start; line < end;) {
      const next = chunk.indexOf(NEWLINE, line) + 1;
      const text = chunk.subarray(line, lineTextEnd(chunk, line, next));
      if (text.length > MAX_REQUEST_BYTES) {
        throw new OrchestratorError(
          "limit_exceeded",
          `Cannot read line: it is longer than ${MAX_REQUEST_BYTES} bytes`,
        );
      }
      line = next;
      const upload = this.#decode(text);
      if (upload !== undefined && upload.length > 0) {
        scanner.expectRaw(upload.length, (bytes) =>
          this.#put({ kind: "raw", bytes }, bytes.length),
        );
        return line;
      }
    }
    return end;
  }

  /** Decodes one request; returns it if raw bytes follow. */
  #decode(body: Buffer): UploadRequest | undefined {
    this.#options.onRequest();
    try {
      if (!isUtf8(body)) {
        throw new OrchestratorError("bad_request", "Cannot parse request: it is not valid UTF-8");
      }
      const request = decodeRequest(body.toString());
      this.#put({ kind: "request", request }, body.length);
      return request.kind === "AddWithBinary" ? request : undefined;
    } catch (error) {
      // Bytes may follow that must never be read as requests: the stream ends here.
      const isFatal = announcesBytes(body);
      this.#put({ kind: "fault", error, isFatal }, body.length);
      if (isFatal) this.end();
      return undefined;
    }
  }
}

/** Whether a request that was refused announces the bytes of an upload all the same. */
function announcesBytes(body: Buffer): boolean {
  const text = body.toString();
  try {
    const upload: unknown = JSON.parse(text)?.AddWithBinary;
    if (upload === undefined) return false;
    const length: unknown = (upload as { length?: unknown } | null)?.length;
    if (length !== undefined && length !== null && length !== 0) return true;
  } catch {
    return false; // not even JSON: nothing is announced
  }
  return structureFault(text) !== undefined; // of a key that is there twice, the first may announce some
}
