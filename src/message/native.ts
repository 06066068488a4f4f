// Reads the native dialect: frames → runs of data, telemetry, control requests.
//
//   0        4      5       6        8            8 + n
//   +--------+------+-------+--------+------------+-----------+
//   |  size  | kind | flags |   n    | type name  |  payload  |
//   +--------+------+-------+--------+------------+-----------+
//
// Throws at the first frame that is none; what came before has then been handed on.

import { isUtf8 } from "node:buffer";

import { FrameScanner } from "../frame.ts";
import { parseJson } from "../json.ts";
import { MAX_TYPE_NAME_BYTES } from "../limits.ts";
import { NEWLINE, skipSpace, skipSpaceBack } from "../lines.ts";
import {
  bad,
  decodeText,
  HEADER_BYTES,
  KIND,
  type MessageReader,
  type MessageSink,
  RunBuilder,
  SUBJECT,
} from "../message.ts";
import type { TypeName, TypeTable } from "./typename.ts";

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
    this.#scanner = new FrameScanner(
      4,
      maxFrameBytes,
      (chunk, view, start, end) => this.#frame(chunk, view, start, end),
      (pieces, length) => this.#pieces(pieces, length),
    );
  }

  push(chunk: Buffer): void {
    try {
      this.#scanner.push(chunk);
    } finally {
      this.#runs.flush();
    }
  }

  finish(): void {}

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

  /** A large frame that came in several chunks; its header and type name lie in the first piece. */
  #pieces([first, ...rest]: readonly [Buffer, ...Buffer[]], length: number): void {
    const isData = first[4] === KIND.data;
    const chunk = isData ? first : Buffer.concat([first, ...rest]);
    this.#runs.flush();
    this.#frame(chunk, new DataView(chunk.buffer, chunk.byteOffset, chunk.length), 0, length);
    this.#runs.flush(isData ? rest : undefined);
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
