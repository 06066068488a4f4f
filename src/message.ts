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
import { isObject, parseJson } from "./json.ts";

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
/** What follows the payload in a Veecle line. */
export const LINE_END = '"}}\n';
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

  /**
   * Whether the pattern stands at `start`; the caller knows that the chunk is long enough. Compares
   * eight bytes at a time as a number: no pattern holds a NUL or an invalid byte, so that none is
   * a zero or not a number, and equal numbers are equal bytes.
   */
  standsAt(chunk: Buffer, view: DataView, start: number): boolean {
    const { length } = this;
    const expected = this.#view;
    let i = 0;
    for (; i + 8 <= length; i += 8) {
      if (expected.getFloat64(i, true) !== view.getFloat64(start + i, true)) return false;
    }
    if (length >= 8) {
      return expected.getFloat64(length - 8, true) === view.getFloat64(start + length - 8, true);
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
  /** Where the table keeps it. */
  readonly slot: number;

  constructor(text: string, slot: number = 0) {
    this.text = text;
    this.slot = slot;
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
  readonly #followers: (TypeName | undefined)[] = new Array<TypeName | undefined>(TYPE_TABLE_SLOTS);

  /** The type that followed this one last: a guess that saves a search when types take turns. */
  followerOf(type: TypeName): TypeName | undefined {
    return this.#followers[type.slot];
  }

  setFollower(type: TypeName, follower: TypeName): void {
    this.#followers[type.slot] = follower;
  }

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
    const type = new TypeName(text, slot);
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
  readonly #max: number;
  readonly #sink: MessageSink;
  readonly #runs: RunBuilder;
  readonly #scanner: FrameScanner;

  constructor(types: TypeTable, maxFrameBytes: number, sink: MessageSink) {
    this.#types = types;
    this.#sink = sink;
    this.#runs = new RunBuilder("native", sink);
    this.#max = maxFrameBytes;
    this.#scanner = new FrameScanner(4, maxFrameBytes, (chunk, view, start, end) =>
      this.#frame(chunk, view, start, end),
    );
  }

  push(chunk: Buffer): void {
    try {
      this.#scanner.push(chunk);
    } finally {
      this.#runs.flush();
    }
  }

  #frame(chunk: Buffer, view: DataView, start: number, end: number): number {
    const kind = chunk[start + 4] as number;
    const length = view.getUint16(start + 6);
    const name = start + HEADER_BYTES;
    if (name + length > end) throw bad("a frame is shorter than its type name");
    if (kind === KIND.data) {
      return this.#data(this.#type(chunk, view, name, length), chunk, view, start, end);
    }
    this.#other(kind, chunk.subarray(name + length, end));
    return end;
  }

  #type(chunk: Buffer, view: DataView, start: number, length: number): TypeName {
    const last = this.#runs.run.type;
    if (last.name.length === length && last.name.standsAt(chunk, view, start)) return last;
    const guess = this.#types.followerOf(last);
    if (guess?.name.length === length && guess.name.standsAt(chunk, view, start)) return guess;
    if (length === 0 || length > MAX_TYPE_NAME_BYTES) {
      throw bad(`a type name has 1 to ${MAX_TYPE_NAME_BYTES} bytes, this one ${length}`);
    }
    const type = this.#types.find(chunk, view, start, length);
    this.#types.setFollower(last, type);
    return type;
  }

  /** Takes a data frame, and those behind it as long as their types are equal or take turns as before. */
  #data(first: TypeName, chunk: Buffer, view: DataView, start: number, end: number): number {
    let type = first;
    let from = start;
    let next = end;
    let count = 1;
    let longest = end - start - 4;
    while (chunk.length - next >= HEADER_BYTES) {
      const size = view.getUint32(next);
      const header = view.getInt32(next + 4); // kind, flags, length of the name
      const length = header & 0xffff;
      if (header >>> 24 !== KIND.data) break;
      if (size > this.#max || size < 4 + length || next + 4 + size > chunk.length) break;
      if (length !== type.name.length || !type.name.standsAt(chunk, view, next + HEADER_BYTES)) {
        const guess = this.#types.followerOf(type);
        if (guess?.name.length !== length) break;
        if (!guess.name.standsAt(chunk, view, next + HEADER_BYTES)) break;
        this.#runs.add(type, chunk, from, next, count, longest + 4);
        type = guess;
        from = next;
        count = 0;
        longest = 0;
      }
      if (size > longest) longest = size;
      next += 4 + size;
      count++;
    }
    this.#runs.add(type, chunk, from, next, count, longest + 4);
    return next;
  }

  #other(kind: number, payload: Buffer): void {
    if (kind === KIND.telemetry) this.#telemetry(payload);
    else if (kind === KIND.controlRequest || kind === KIND.hello) {
      this.#runs.flush();
      const value = parseJson(decodeText(payload), SUBJECT);
      if (kind === KIND.hello) this.#sink.hello(value);
      else this.#sink.controlRequest(value);
    } else this.#sink.skipped(`frame of kind ${kind}`);
  }

  #telemetry(payload: Buffer): void {
    if (!isUtf8(payload)) throw bad("telemetry is not valid UTF-8");
    // The bytes themselves, since numbers may have more digits than JavaScript keeps. A newline can
    // only be white space between two tokens.
    const isOneLine = !payload.includes(NEWLINE);
    const json = isOneLine ? payload : Buffer.from(payload.toString().replaceAll("\n", " "));
    const start = skipSpace(json, 0, json.length);
    const end = skipSpaceBack(json, start, json.length);
    if (json[start] !== 0x7b || json[end - 1] !== 0x7d) throw bad("telemetry is not an object");
    this.#sink.telemetry(json, start, end);
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
    this.#scanner = new LineScanner(maxLineBytes, (chunk, start, end) =>
      this.#lines(chunk, start, end),
    );
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
      const type = this.#head(chunk, view, line, end);
      const stop = type === undefined ? line : this.#data(type, chunk, view, line, end, ascii);
      if (stop > line) {
        line = stop;
        continue;
      }
      const next = chunk.indexOf(NEWLINE, line) + 1;
      if (lineTextEnd(chunk, line, next) - line > this.#max) throw this.#tooLong();
      this.#line(chunk, view, line, next, ascii);
      line = next;
    }
    return end;
  }

  /**
   * Takes lines in their usual form as long as their types are equal or take turns as before;
   * returns where it stopped, `start` if at the first.
   */
  #data(
    first: TypeName,
    chunk: Buffer,
    view: DataView,
    start: number,
    end: number,
    ascii: boolean,
  ): number {
    let type = first;
    let from = start;
    let line = start;
    let count = 0;
    let longest = 0;
    for (;;) {
      const next = valueEnd(chunk, view, line + type.lineHead.length, end);
      if (next === 0 || next - line > this.#max + 1) break;
      if (!ascii && !isUtf8(chunk.subarray(line, next))) break;
      if (next - line > longest) longest = next - line;
      line = next;
      count++;
      if (hasHead(type, chunk, view, line, end)) continue;
      const guess = this.#types.followerOf(type);
      if (guess === undefined || !hasHead(guess, chunk, view, line, end)) break;
      this.#runs.add(type, chunk, from, line, count, longest);
      type = guess;
      from = line;
      count = 0;
      longest = 0;
    }
    if (count > 0) this.#runs.add(type, chunk, from, line, count, longest);
    return line;
  }

  /** The type name of a line that begins as existing runtimes write it, or undefined. */
  #head(chunk: Buffer, view: DataView, line: number, end: number): TypeName | undefined {
    const last = this.#runs.run.type;
    if (hasHead(last, chunk, view, line, end)) return last;
    const guess = this.#types.followerOf(last);
    if (guess !== undefined && hasHead(guess, chunk, view, line, end)) return guess;
    const name = line + LINE_START_PATTERN.length;
    if (name > end || !LINE_START_PATTERN.standsAt(chunk, view, line)) return undefined;
    const quote = plainEnd(chunk, name, end);
    if (quote + LINE_MIDDLE_PATTERN.length > end || quote === name) return undefined;
    if (!LINE_MIDDLE_PATTERN.standsAt(chunk, view, quote)) return undefined;
    if (quote - name > MAX_TYPE_NAME_BYTES) return undefined;
    const type = this.#types.find(chunk, view, name, quote - name);
    if (!type.isPlain) return undefined;
    this.#types.setFollower(last, type);
    return type;
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
      // The bytes themselves, since numbers may have more digits than JavaScript keeps: from the
      // brace behind the only key to the one before the last.
      const json = Buffer.from(text);
      const key = stringEnd(json, json.indexOf(0x22));
      const last = skipSpaceBack(json, key, json.length) - 1;
      this.#sink.telemetry(json, json.indexOf(0x7b, key), skipSpaceBack(json, key, last));
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

/** Behind white space that JSON allows between tokens. */
function skipSpace(bytes: Buffer, start: number, end: number): number {
  let at = start;
  while (at < end && isSpace(bytes[at] as number)) at++;
  return at;
}

/** Before white space that JSON allows between tokens. */
function skipSpaceBack(bytes: Buffer, start: number, end: number): number {
  let at = end;
  while (at > start && isSpace(bytes[at - 1] as number)) at--;
  return at;
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d;
}

/** Behind the quote that ends the JSON string whose first quote stands at `start`. */
function stringEnd(bytes: Buffer, start: number): number {
  let at = start + 1;
  while (bytes[at] !== 0x22) at += bytes[at] === 0x5c ? 2 : 1;
  return at + 1;
}

function hasHead(
  type: TypeName,
  chunk: Buffer,
  view: DataView,
  line: number,
  end: number,
): boolean {
  const head = type.lineHead;
  return line + head.length <= end && head.standsAt(chunk, view, line);
}

const LINE_START_PATTERN = new Pattern(LINE_START);
const LINE_MIDDLE_PATTERN = new Pattern(LINE_MIDDLE);
const TELEMETRY_PATTERN = new Pattern(TELEMETRY_START);

/** The first quote, backslash or control character at or behind `start`, or `end`. */
function plainEnd(chunk: Buffer, start: number, end: number): number {
  let i = start;
  for (; i < end; i++) {
    const byte = chunk[i] as number;
    if (byte === 0x22 || byte === 0x5c || byte < 0x20) break;
  }
  return i;
}

const HIGH_BITS = 0x80808080 | 0;

/** The characters that may follow a backslash; `\\u` and anything invalid go the careful way. */
const ESCAPES = new Uint8Array(256);
for (const character of '"\\/bfnrt') ESCAPES[character.charCodeAt(0)] = 1;

/**
 * Where a line ends whose JSON string value starts at `start`, if it is valid and ends as usual;
 * else 0. Looks at four bytes at a time: `^ 2` moves the quote next to the control characters, so
 * that two comparisons find a quote, a control character or a backslash.
 */
function valueEnd(chunk: Buffer, view: DataView, start: number, end: number): number {
  let i = start;
  while (i + 4 <= end) {
    const word = view.getInt32(i, true);
    const controls = ((word ^ 0x02020202) | HIGH_BITS) - 0x21212121;
    const escapes = ((word ^ 0x5c5c5c5c) | HIGH_BITS) - 0x01010101;
    const found = ~(controls & escapes) & HIGH_BITS;
    if (found === 0) {
      i += 4;
      continue;
    }
    i += (31 - Math.clz32(found & -found)) >>> 3;
    const byte = chunk[i] as number;
    if (byte === 0x5c) {
      if (ESCAPES[chunk[i + 1] as number] !== 1) return 0;
      i += 2;
    } else if (byte >= 0x80) i++;
    else break;
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
