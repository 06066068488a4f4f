// What kind of message, which type name: in both dialects, without parsing the payload.
//
//   native   | size | kind | flags | n | type name | payload |          kind 1 is data
//   Veecle   {"Storable":{"type_name":"<type name>","value":"<payload as a JSON string>"}}\n
//
// A reader turns chunks into runs: neighbouring data messages of one type, still in the chunk they
// arrived in. Everything else (telemetry, control, hello) goes to the sink one by one. A reader
// throws at the first byte that is not the dialect's; what came before has then been handed on.
// A Veecle line is handed on only if every runtime would accept it: one bad line ends a connection
// of the existing runtimes, and that must never happen to somebody else than its sender.

import { isAscii, isUtf8 } from "node:buffer";

import { OrchestratorError } from "./errors.ts";
import { FrameScanner } from "./frame.ts";
import { MAX_TYPE_NAME_BYTES, TYPE_TABLE_SLOTS } from "./limits.ts";
import { LineScanner, lineTextEnd, NEWLINE } from "./lines.ts";
import { typeNameFault } from "./model.ts";
import { isObject, parseJson } from "./protocol.ts";

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

const LINE_START = '{"Storable":{"type_name":"';
const LINE_MIDDLE = '","value":"';
const LINE_END = '"}}\n';
const TELEMETRY_START = '{"Telemetry":';
const SUBJECT = "Cannot read message";
const OUTER_START = '{"Storable":';

/** Bytes that are looked for again and again, with a view for comparing words. */
class Pattern {
  readonly bytes: Buffer;
  readonly length: number;
  readonly #view: DataView;

  constructor(text: string) {
    this.bytes = Buffer.from(text);
    this.length = this.bytes.length;
    this.#view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.length);
  }

  /** Whether the pattern stands at `start`. The caller knows that the chunk is long enough. */
  standsAt(chunk: Buffer, view: DataView, start: number): boolean {
    const length = this.length;
    let i = 0;
    for (; i + 4 <= length; i += 4) {
      if (this.#view.getInt32(i, true) !== view.getInt32(start + i, true)) return false;
    }
    for (; i < length; i++) if (this.bytes[i] !== chunk[start + i]) return false;
    return true;
  }
}

/** A type name that was seen on the wire, with the bytes that surround a payload in each dialect. */
export class TypeName {
  readonly text: string;
  /** UTF-8. */
  readonly name: Pattern;
  /** The beginning of a Veecle line, up to the payload. */
  readonly lineHead: Pattern;
  /** Whether the name stands in a line as it is, without escapes. */
  readonly isPlain: boolean;

  constructor(text: string) {
    this.text = text;
    this.name = new Pattern(text);
    const quoted = JSON.stringify(text);
    this.isPlain = quoted.length === text.length + 2;
    this.lineHead = new Pattern(`${LINE_START}${quoted.slice(1, -1)}${LINE_MIDDLE}`);
  }
}

/** Neighbouring data messages of one type: `chunk[start, end)` holds `count` whole ones. Reused: copy what is kept. */
export interface Run {
  readonly dialect: Dialect;
  type: TypeName;
  chunk: Buffer;
  start: number;
  end: number;
  count: number;
  /** Length of the longest of them, with its prefix or newline. */
  longest: number;
}

/** Where a reader hands what it found. Views are valid as long as they are kept. */
export interface MessageSink {
  data(run: Run): void;
  /** One JSON value without a newline, byte for byte as the instance sent it. */
  telemetry(chunk: Buffer, start: number, end: number): void;
  controlRequest(value: unknown): void;
  hello(value: unknown): void;
  /** A message that is skipped: unknown to us, or of a kind that only we may send. */
  skipped(kind: string): void;
}

/** Decoded type names, found by their bytes. Fixed size: a new name may take an older one's place. */
export class TypeTable {
  readonly #slots: (TypeName | undefined)[] = new Array<TypeName | undefined>(TYPE_TABLE_SLOTS);

  /**
   * The type name whose bytes are `chunk[start, start + length)`.
   * @throws `bad_request` if they are no type name
   */
  find(chunk: Buffer, view: DataView, start: number, length: number): TypeName {
    let hash = length;
    const end = start + length;
    if (length >= 8) {
      const middle = (start + end) >>> 1;
      hash = Math.imul(hash ^ view.getInt32(end - 4, true), 0x9e3779b1);
      hash = Math.imul(hash ^ view.getInt32(middle - 2, true), 0x85ebca6b);
    } else {
      for (let i = start; i < end; i++) hash = Math.imul(hash ^ (chunk[i] as number), 0x9e3779b1);
    }
    const slot = (hash ^ (hash >>> 15)) & (TYPE_TABLE_SLOTS - 1);
    const known = this.#slots[slot];
    if (known?.name.length === length && known.name.standsAt(chunk, view, start)) return known;
    const bytes = chunk.subarray(start, end);
    if (!isUtf8(bytes)) throw bad("the type name is not valid UTF-8");
    const text = bytes.toString();
    const fault = typeNameFault(text);
    if (fault !== undefined) throw bad(`the type name cannot be used: ${fault}`);
    const type = new TypeName(text);
    this.#slots[slot] = type;
    return type;
  }
}

const NOTHING = Buffer.alloc(0);

/** Collects neighbouring messages of one type into runs. */
class RunBuilder {
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
      count: 0,
      longest: 0,
    };
  }

  add(type: TypeName, chunk: Buffer, start: number, end: number): void {
    const run = this.run;
    if (run.count > 0 && run.type === type && run.end === start && run.chunk === chunk) {
      run.end = end;
      run.count++;
      if (end - start > run.longest) run.longest = end - start;
      return;
    }
    this.flush();
    run.type = type;
    run.chunk = chunk;
    run.start = start;
    run.end = end;
    run.count = 1;
    run.longest = end - start;
  }

  flush(): void {
    if (this.run.count === 0) return;
    this.#sink.data(this.run);
    this.run.count = 0;
    this.run.chunk = NOTHING; // a kept view would pin the chunk
  }
}

/** Turns chunks into messages; one for each connection. */
export interface MessageReader {
  readonly dialect: Dialect;
  /** @throws `bad_request` or `limit_exceeded`: the connection is then lost */
  push(chunk: Buffer): void;
}

/** Reads the native dialect. */
export class NativeReader implements MessageReader {
  readonly dialect = "native";
  readonly #types: TypeTable;
  readonly #sink: MessageSink;
  readonly #runs: RunBuilder;
  readonly #scanner: FrameScanner;

  constructor(types: TypeTable, maxFrameBytes: number, sink: MessageSink) {
    this.#types = types;
    this.#sink = sink;
    this.#runs = new RunBuilder("native", sink);
    this.#scanner = new FrameScanner(4, maxFrameBytes, this.#frame.bind(this));
  }

  push(chunk: Buffer): void {
    try {
      this.#scanner.push(chunk);
    } finally {
      this.#runs.flush();
    }
  }

  #frame(chunk: Buffer, view: DataView, start: number, end: number): void {
    const kind = chunk[start + 4] as number;
    const length = view.getUint16(start + 6);
    const name = start + HEADER_BYTES;
    if (name + length > end) throw bad("a frame is shorter than its type name");
    if (kind === KIND.data) {
      const last = this.#runs.run.type;
      if (last.name.length === length && last.name.standsAt(chunk, view, name)) {
        this.#runs.add(last, chunk, start, end);
      } else {
        if (length === 0 || length > MAX_TYPE_NAME_BYTES) {
          throw bad(`a type name has 1 to ${MAX_TYPE_NAME_BYTES} bytes, this one ${length}`);
        }
        this.#runs.add(this.#types.find(chunk, view, name, length), chunk, start, end);
      }
      return;
    }
    const payload = chunk.subarray(name + length, end);
    if (kind === KIND.telemetry) this.#telemetry(payload);
    else if (kind === KIND.controlRequest || kind === KIND.hello) {
      this.#runs.flush();
      const value = parseJson(decodeText(payload), SUBJECT);
      if (kind === KIND.hello) this.#sink.hello(value);
      else this.#sink.controlRequest(value);
    } else this.#sink.skipped(`frame of kind ${kind}`);
  }

  /** Passes on the bytes themselves: numbers may have more digits than JavaScript keeps. */
  #telemetry(payload: Buffer): void {
    if (payload[0] !== 0x7b || payload.at(-1) !== 0x7d) throw bad("telemetry is not an object");
    if (!isUtf8(payload)) throw bad("telemetry is not valid UTF-8");
    const isOneLine = !payload.includes(NEWLINE);
    // In JSON a newline can only be white space between two tokens.
    const json = isOneLine ? payload : Buffer.from(payload.toString().replaceAll("\n", " "));
    this.#sink.telemetry(json, 0, json.length);
  }
}

/** Reads the Veecle dialect. */
export class VeecleReader implements MessageReader {
  readonly dialect = "veecle";
  readonly #types: TypeTable;
  readonly #max: number;
  readonly #sink: MessageSink;
  readonly #runs: RunBuilder;
  readonly #scanner: LineScanner;

  constructor(types: TypeTable, maxLineBytes: number, sink: MessageSink) {
    this.#types = types;
    this.#max = maxLineBytes;
    this.#sink = sink;
    this.#runs = new RunBuilder("veecle", sink);
    this.#scanner = new LineScanner(maxLineBytes, this.#lines.bind(this));
  }

  push(chunk: Buffer): void {
    try {
      this.#scanner.push(chunk);
    } finally {
      this.#runs.flush();
    }
  }

  #lines(chunk: Buffer, start: number, end: number): number {
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
    const ascii = isAscii(chunk.subarray(start, end));
    for (let line = start; line < end;) {
      const head = this.#head(chunk, view, line, end);
      let next = head === undefined ? 0 : valueEnd(chunk, view, line + head.lineHead.length, end);
      if (head !== undefined && next > 0) {
        if (next - line > this.#max + 1) throw this.#tooLong();
        if (!ascii && !isUtf8(chunk.subarray(line, next))) throw bad("a line is not valid UTF-8");
        this.#runs.add(head, chunk, line, next);
      } else {
        next = chunk.indexOf(NEWLINE, line) + 1;
        if (next - line > this.#max + 1) throw this.#tooLong();
        this.#line(chunk, view, line, next, ascii);
      }
      line = next;
    }
    return end;
  }

  /** The type name of a line that begins as existing runtimes write it, or undefined. */
  #head(chunk: Buffer, view: DataView, line: number, end: number): TypeName | undefined {
    const last = this.#runs.run.type;
    const head = last.lineHead;
    if (line + head.length <= end && head.standsAt(chunk, view, line)) return last;
    const name = line + LINE_START_PATTERN.length;
    if (name > end || !LINE_START_PATTERN.standsAt(chunk, view, line)) return undefined;
    const quote = plainEnd(chunk, view, name, end);
    if (quote + LINE_MIDDLE_PATTERN.length > end || quote === name) return undefined;
    if (!LINE_MIDDLE_PATTERN.standsAt(chunk, view, quote)) return undefined;
    if (quote - name > MAX_TYPE_NAME_BYTES) return undefined;
    const type = this.#types.find(chunk, view, name, quote - name);
    return type.isPlain ? type : undefined;
  }

  /** A whole line that is not a message in the usual form. */
  #line(chunk: Buffer, view: DataView, start: number, end: number, ascii: boolean): void {
    const textEnd = lineTextEnd(chunk, start, end);
    if (!ascii && !isUtf8(chunk.subarray(start, textEnd))) throw bad("a line is not valid UTF-8");
    const inner = start + TELEMETRY_PATTERN.length;
    if (
      textEnd > inner + 2 &&
      TELEMETRY_PATTERN.standsAt(chunk, view, start) &&
      chunk[inner] === 0x7b &&
      chunk[textEnd - 1] === 0x7d &&
      chunk[textEnd - 2] === 0x7d
    ) {
      this.#sink.telemetry(chunk, inner, textEnd - 1);
      return;
    }
    this.#value(chunk.toString("utf8", start, textEnd));
  }

  /** A line in some other legal JSON form. */
  #value(text: string): void {
    const value = parseJson(text, SUBJECT);
    const [name, ...more] = isObject(value) ? Object.keys(value) : [];
    if (!isObject(value) || name === undefined || more.length > 0) {
      throw bad("a line is not an object with exactly one key");
    }
    const body = value[name];
    if (name === "Storable") {
      const { type, line } = encodeStorable(body);
      this.#runs.add(type, line, 0, line.length);
    } else if (name === "Telemetry") {
      if (!isObject(body)) throw bad("telemetry is not an object");
      // The bytes themselves: its numbers may have more digits than JavaScript keeps.
      const match = /^\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*(.*?)\s*\}\s*$/s.exec(text);
      const json = Buffer.from(match?.[1] ?? "");
      this.#sink.telemetry(json, 0, json.length);
    } else if (name === "ControlRequest") {
      this.#runs.flush();
      this.#sink.controlRequest(body);
    } else if (name === "ControlResponse") this.#sink.skipped("ControlResponse");
    else throw bad(`unknown message ${JSON.stringify(name.slice(0, 64))}`);
  }

  #tooLong(): OrchestratorError {
    return new OrchestratorError(
      "limit_exceeded",
      `Cannot read message: a line is longer than ${this.#max} bytes`,
    );
  }
}

const LINE_START_PATTERN = new Pattern(LINE_START);
const LINE_MIDDLE_PATTERN = new Pattern(LINE_MIDDLE);
const TELEMETRY_PATTERN = new Pattern(TELEMETRY_START);

/** The first quote, backslash or control character at or behind `start`, or `end`. Four bytes at a time. */
function plainEnd(chunk: Buffer, view: DataView, start: number, end: number): number {
  let i = start;
  for (; i + 4 <= end; i += 4) {
    const word = view.getInt32(i, true);
    const quote = word ^ 0x22222222;
    const escape = word ^ 0x5c5c5c5c;
    const found =
      ((quote - 0x01010101) & ~quote) |
      ((escape - 0x01010101) & ~escape) |
      ((word - 0x20202020) & ~word);
    if ((found & 0x80808080) !== 0) break;
  }
  for (; i < end; i++) {
    const byte = chunk[i] as number;
    if (byte === 0x22 || byte === 0x5c || byte < 0x20) break;
  }
  return i;
}

/** Where a line ends whose JSON string value starts at `start`, if it is valid and ends as usual; else 0. */
function valueEnd(chunk: Buffer, view: DataView, start: number, end: number): number {
  let i = plainEnd(chunk, view, start, end);
  while (i < end && chunk[i] === 0x5c) {
    const escape = chunk[i + 1];
    if (escape === 0x22 || escape === 0x5c || escape === 0x6e || escape === 0x2f) i += 2;
    else if (escape === 0x62 || escape === 0x66 || escape === 0x72 || escape === 0x74) i += 2;
    else return 0; // \u and anything invalid: the careful way
    i = plainEnd(chunk, view, i, end);
  }
  return i + 4 <= end && view.getInt32(i, true) === LINE_END_WORD ? i + 4 : 0;
}

const LINE_END_WORD = Buffer.from(LINE_END).readInt32LE(0);

/** The usual line of a `Storable` whose fields came in some other legal form. */
function encodeStorable(body: unknown): { type: TypeName; line: Buffer } {
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

/** The payload of a message as text, or undefined if it is not UTF-8. */
function payloadText(type: TypeName, dialect: Dialect, message: Buffer): string | undefined {
  if (dialect === "veecle") {
    return JSON.parse(message.toString("utf8", type.lineHead.length - 1, message.length - 3));
  }
  const payload = message.subarray(HEADER_BYTES + message.readUInt16BE(6));
  return isUtf8(payload) ? payload.toString() : undefined;
}

/** One message of `type` in the other dialect, or undefined if its payload is not UTF-8. */
export function translate(type: TypeName, from: Dialect, message: Buffer): Buffer | undefined {
  const text = payloadText(type, from, message);
  if (text === undefined) return undefined;
  if (from === "native") {
    const tail = Buffer.from(`${JSON.stringify(text).slice(1, -1)}${LINE_END}`);
    return Buffer.concat([type.lineHead.bytes, tail]);
  }
  return encodeNative(KIND.data, type.name.bytes, Buffer.from(text));
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

function decodeText(bytes: Uint8Array): string {
  if (!isUtf8(bytes)) throw bad("it is not valid UTF-8");
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString();
}

function bad(reason: string): OrchestratorError {
  return new OrchestratorError("bad_request", `${SUBJECT}: ${reason}`);
}
