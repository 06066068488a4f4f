// Messages in both dialects: kinds, runs, and the bytes around a payload. No payload is parsed.
//
//   native   | size | kind | flags | n | type name | payload |          kind 1 is data
//   Veecle   {"Storable":{"type_name":"<type name>","value":"<payload as a JSON string>"}}\n
//
// A reader (`native.ts`, `veecle.ts`) turns chunks into runs: neighbouring data messages of one type,
// still in the chunk they arrived in. Everything else goes to the sink one by one.

import { isUtf8 } from "node:buffer";

import { OrchestratorError } from "./errors.ts";
import { isObject, parseJson } from "./json.ts";
import { NEWLINE } from "./lines.ts";
import { typeNameFault } from "./model.ts";
import { TypeName } from "./message/typename.ts";

export type Dialect = "veecle" | "native";

/** Kinds of native frames; any other is skipped and counted. */
export const KIND = {
  data: 1,
  hello: 2,
  controlRequest: 3,
  controlResponse: 4,
  telemetry: 5,
  notice: 6,
} as const;

/** Bytes of a native frame before its type name: size, kind, flags, n. */
export const HEADER_BYTES = 8;

/** What follows the payload in a Veecle line. */
export const LINE_END = '"}}\n';
const OUTER_START = '{"Storable":';

/** The highest bit of each byte of a word. */
export const HIGH_BITS: number = 0x80808080 | 0;

/**
 * One bit for each byte of a word that a JSON string cannot hold as it is: a quote, a backslash, a
 * control character; perhaps also for a byte that is not ASCII. `^ 2` moves the quote next to the
 * control characters, so that two comparisons find all three.
 */
export function specialBytes(word: number): number {
  const controls = ((word ^ 0x02020202) | HIGH_BITS) - 0x21212121;
  const escapes = ((word ^ 0x5c5c5c5c) | HIGH_BITS) - 0x01010101;
  return ~(controls & escapes) & HIGH_BITS;
}

/** The place, 0 to 3, of the first byte that has its bit set. */
export function firstByte(found: number): number {
  return (31 - Math.clz32(found & -found)) >>> 3;
}

/** How the message of every error of a reader begins. */
export const SUBJECT = "Cannot read message";

/**
 * Neighbouring data messages of one type: `chunk[start, end)` holds `count` whole ones. A single native
 * one of more than `GATHER_BLOCK_BYTES` may begin in `chunk`, with its header and type name, and go on
 * in `rest`; `end` then lies behind the chunk, as if all were one. Reused: copy what is kept.
 */
export interface Run {
  readonly dialect: Dialect;
  type: TypeName;
  chunk: Buffer;
  start: number;
  end: number;
  rest: readonly Buffer[];
  count: number;
  /** Length of the longest of them, with its prefix or newline. */
  longest: number;
}

/** Where a reader hands what it found. Views are valid as long as they are kept. */
export interface MessageSink {
  data(run: Run): void;
  /**
   * One object without a newline, byte for byte as the instance sent it. Valid UTF-8 in braces; what
   * stands between them is its sender's business, since no reader of telemetry depends on another's.
   */
  telemetry(chunk: Buffer, start: number, end: number): void;
  controlRequest(value: unknown): void;
  hello(value: unknown): void;
  /** A message that is skipped: unknown to us, or of a kind that only we may send. */
  skipped(kind: string): void;
}

const NOTHING = Buffer.alloc(0);
/** The rest of a run that lies in one chunk. */
export const NO_REST: readonly Buffer[] = [];

/** Collects neighbouring messages of one type into runs; a reader's own. */
export class RunBuilder {
  readonly run: Run;
  readonly #sink: MessageSink;

  constructor(dialect: Dialect, sink: MessageSink) {
    this.#sink = sink;
    this.run = {
      dialect,
      type: new TypeName("none"),
      chunk: NOTHING,
      start: 0,
      end: 0,
      rest: NO_REST,
      count: 0,
      longest: 0,
    };
  }

  /** Adds `count` whole neighbours, of which the longest has `longest` bytes. */
  add(
    type: TypeName,
    chunk: Buffer,
    start: number,
    end: number,
    count: number = 1,
    longest: number = end - start,
  ): void {
    const run = this.run;
    if (run.count > 0 && run.type === type && run.end === start && run.chunk === chunk) {
      run.end = end;
      run.count += count;
      if (longest > run.longest) run.longest = longest;
      return;
    }
    this.flush();
    run.type = type;
    run.chunk = chunk;
    run.start = start;
    run.end = end;
    run.count = count;
    run.longest = longest;
  }

  /** Hands on what there is; `rest` is what a single large message has besides its chunk. */
  flush(rest: readonly Buffer[] = NO_REST): void {
    if (this.run.count === 0) return;
    this.run.rest = rest;
    this.#sink.data(this.run);
    this.run.count = 0;
    this.run.chunk = NOTHING; // a kept view would pin the chunk
    this.run.rest = NO_REST;
  }
}

/** Turns chunks into messages; one for each connection. */
export interface MessageReader {
  readonly dialect: Dialect;
  /** @throws `bad_request` or `limit_exceeded`: the connection is then lost */
  push(chunk: Buffer): void;
  /** No more comes. A last line that lacks only its newline is read; what is cut is nobody's. */
  finish(): void;
}

/** The usual line of a `Storable` whose fields came in some other legal form. */
export function encodeStorable(body: unknown): { type: TypeName; line: Buffer } {
  if (!isObject(body)) throw bad("Storable is not an object");
  const name = body["type_name"];
  const value = body["value"];
  if (typeof name !== "string") throw bad("Storable.type_name is not a string");
  if (typeof value !== "string") throw bad("Storable.value is not a string");
  if (!value.isWellFormed()) throw bad("Storable.value contains an unpaired surrogate");
  const fault = typeNameFault(name);
  if (fault !== undefined) throw bad(`Storable.type_name cannot be used: ${fault}`);
  const type = new TypeName(name);
  const rest = Buffer.from(`${JSON.stringify(value).slice(1, -1)}${LINE_END}`);
  return { type, line: Buffer.concat([type.lineHead.bytes, rest]) };
}

/**
 * One message from another orchestrator, as a Veecle line.
 * @throws `bad_request`
 */
export function decodeDatagram(datagram: Uint8Array): { type: TypeName; line: Buffer } {
  return encodeStorable(parseJson(decodeText(datagram), SUBJECT));
}

/** The datagram of a Veecle line in its usual form: a view without the outer object. */
export function datagramOf(chunk: Buffer, start: number, end: number): Buffer {
  return chunk.subarray(start + OUTER_START.length, end - 2);
}

/** Walks whole messages: the end of the one that begins at `start`. */
export function messageEnd(dialect: Dialect, chunk: Buffer, start: number): number {
  return dialect === "native"
    ? start + 4 + chunk.readUInt32BE(start)
    : chunk.indexOf(NEWLINE, start) + 1;
}

/** A native frame. */
export function encodeNative(kind: number, typeName: Uint8Array, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + typeName.length + payload.length);
  frame.writeUInt32BE(frame.length - 4, 0);
  frame.writeUInt32BE(((kind << 24) | typeName.length) >>> 0, 4);
  frame.set(typeName, HEADER_BYTES);
  frame.set(payload, HEADER_BYTES + typeName.length);
  return frame;
}

/** @throws `bad_request` unless the bytes are valid UTF-8 */
export function decodeText(bytes: Uint8Array): string {
  if (!isUtf8(bytes)) throw bad("it is not valid UTF-8");
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString();
}

/** The peer's fault: what is wrong with its bytes. */
export function bad(reason: string): OrchestratorError {
  return new OrchestratorError("bad_request", `${SUBJECT}: ${reason}`);
}
