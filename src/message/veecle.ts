// Reads the Veecle dialect: lines → runs of data, telemetry, control requests.
//
//   {"Storable":{"type_name":"<type name>","value":"<payload as a JSON string>"}}\n
//
// A line is handed on only if every runtime would accept it: one bad line ends a connection of the
// existing runtimes, and that must never happen to somebody else than its sender. Lines in their usual
// form are looked at four bytes at a time; any other legal form is parsed and written anew.
// Throws at the first line that is none; what came before has then been handed on.

import { isAscii, isUtf8 } from "node:buffer";

import { OrchestratorError } from "../errors.ts";
import { isObject, parseJson } from "../json.ts";
import { MAX_TYPE_NAME_BYTES } from "../limits.ts";
import { LineScanner, lineTextEnd, NEWLINE, skipSpaceBack } from "../lines.ts";
import {
  bad,
  encodeStorable,
  firstByte,
  LINE_END,
  type MessageReader,
  type MessageSink,
  RunBuilder,
  specialBytes,
  SUBJECT,
} from "../message.ts";
import { LINE_MIDDLE, LINE_START, Pattern, type TypeName, type TypeTable } from "./typename.ts";

const TELEMETRY_START = '{"Telemetry":';

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

  finish(): void {
    const last = this.#scanner.takePending();
    if (last.length === 0 || last.length > this.#max || !isUtf8(last)) return;
    try {
      this.#value(last.toString()); // the careful way: what is cut may end in braces too
    } catch (error) {
      if (!(error instanceof OrchestratorError)) throw error;
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

/** The characters that may follow a backslash; `\\u` and anything invalid go the careful way. */
const ESCAPES = new Uint8Array(256);
for (const character of '"\\/bfnrt') ESCAPES[character.charCodeAt(0)] = 1;

/**
 * Where a line ends whose JSON string value starts at `start`, if it is valid and ends as usual;
 * else 0. Looks at four bytes at a time.
 */
function valueEnd(chunk: Buffer, view: DataView, start: number, end: number): number {
  let i = start;
  while (i + 4 <= end) {
    const word = view.getInt32(i, true);
    const found = specialBytes(word);
    if (found === 0) {
      i += 4;
      continue;
    }
    i += firstByte(found);
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
