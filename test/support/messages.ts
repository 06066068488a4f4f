// Both dialects of the instance socket, written and read a second time and in another way: with
// whole JSON parsers and no care for speed, so that tests do not compare the code with itself.

import { expect } from "bun:test";

import type { Dialect, MessageSink, Run } from "../../src/message.ts";
import type { Random } from "./random.ts";

/** What one data message means. */
export interface Data {
  readonly typeName: string;
  readonly payload: Buffer;
}

/** One native frame, by the picture in the protocol. */
export function nativeFrame(
  kind: number,
  typeName: string | Buffer,
  payload: string | Buffer,
  flags: number = 0,
): Buffer {
  const name = Buffer.from(typeName as string);
  const body = Buffer.from(payload as string);
  const frame = Buffer.concat([Buffer.alloc(8), name, body]);
  frame.writeUInt32BE(4 + name.length + body.length, 0);
  frame.writeUInt8(kind, 4);
  frame.writeUInt8(flags, 5);
  frame.writeUInt16BE(name.length, 6);
  return frame;
}

/** One line as existing runtimes write it. */
export function veecleLine(typeName: string, value: string): Buffer {
  return Buffer.from(`${JSON.stringify({ Storable: { type_name: typeName, value } })}\n`);
}

/** Parses as a strict parser does: no invalid UTF-8, no unpaired surrogates, one value. */
export function strictJson(bytes: Uint8Array): unknown {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  return JSON.parse(text, (key, value: unknown) => {
    if (!key.isWellFormed()) throw new Error("unpaired surrogate in a key");
    if (typeof value === "string" && !value.isWellFormed()) throw new Error("unpaired surrogate");
    return value;
  });
}

/** Reads the whole message at `at`: its end and its meaning; throws if a strict receiver would refuse it. */
export function readMessage(bytes: Buffer, at: number): Data & { dialect: Dialect; end: number } {
  if (bytes[at] === 0) {
    const end = at + 4 + bytes.readUInt32BE(at);
    const name = at + 8 + bytes.readUInt16BE(at + 6);
    if (bytes[at + 4] !== 1 || name > end || end > bytes.length) throw new Error("no data frame");
    const typeName = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
      bytes.subarray(at + 8, name),
    );
    return { dialect: "native", typeName, payload: Buffer.from(bytes.subarray(name, end)), end };
  }
  const newline = bytes.indexOf("\n", at);
  if (newline < 0) throw new Error("no end of line");
  const json = strictJson(bytes.subarray(at, newline)) as Record<string, Record<string, string>>;
  const { type_name: typeName, value, ...more } = json["Storable"] ?? {};
  if (typeof typeName !== "string" || typeof value !== "string") throw new Error("no message");
  if (Object.keys({ ...json, ...more }).join() !== "Storable") throw new Error("unknown keys");
  return { dialect: "veecle", typeName, payload: Buffer.from(value), end: newline + 1 };
}

/** Takes what a reader hands on; data is read at once, and can be read again from what was kept. */
export class Collector implements MessageSink {
  readonly messages: Data[] = [];
  readonly telemetries: string[] = [];
  readonly controls: unknown[] = [];
  readonly hellos: unknown[] = [];
  readonly skips: string[] = [];
  /** Type names of data, and `control`, in the order in which they came. */
  readonly order: string[] = [];
  /** Every run, as it was. */
  readonly runs: Run[] = [];

  data(run: Run): void {
    this.runs.push({ ...run });
    for (const message of messagesOf(run)) {
      this.messages.push(message);
      this.order.push(message.typeName);
    }
  }

  telemetry(chunk: Buffer, start: number, end: number): void {
    const bytes = chunk.subarray(start, end);
    expect(bytes.includes("\n")).toBe(false);
    expect([bytes[0], bytes.at(-1)]).toEqual([0x7b, 0x7d]);
    this.telemetries.push(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  }

  controlRequest(value: unknown): void {
    this.controls.push(value);
    this.order.push("control");
  }

  hello(value: unknown): void {
    this.hellos.push(value);
    this.order.push("hello");
  }

  skipped(kind: string): void {
    this.skips.push(kind);
  }

  /** The messages once more, from the views that were handed on. */
  again(): Data[] {
    return this.runs.flatMap((run) => messagesOf(run));
  }
}

/** The bytes of a run, or of a segment, in one buffer, wherever they lie. */
export function bytesOf({ chunk, start, end, rest }: Stretch): Buffer {
  if (rest.length === 0) return chunk.subarray(start, end);
  const bytes = Buffer.concat([chunk.subarray(start), ...rest]);
  expect(bytes).toHaveLength(end - start);
  return bytes;
}

type Stretch = Pick<Run, "chunk" | "start" | "end" | "rest">;

/** Reads a run with the other reader, and checks what the run says of itself. */
function messagesOf(run: Run): Data[] {
  const messages: Data[] = [];
  let longest = 0;
  const bytes = bytesOf(run);
  for (let at = 0; at < bytes.length;) {
    const { dialect, typeName, payload, end } = readMessage(bytes, at);
    expect(dialect).toBe(run.dialect);
    expect(typeName).toBe(run.type.text);
    messages.push({ typeName, payload });
    longest = Math.max(longest, end - at);
    at = end;
  }
  expect([messages.length, longest]).toEqual([run.count, run.longest]);
  return messages;
}

const LETTERS = ["a", "b", "::", " ", "<", "7", "{", "}", "[", ":", ",", "/", "_", "Storable"];
const SPECIAL = [
  '"',
  "\\",
  "\n",
  "\r",
  "\t",
  "\b",
  "\f",
  "\0",
  "\u0001",
  "\u001f",
  "\u007f",
  "\\n",
];
const FOREIGN = ["é", "ß", "€", "\u2028", "\ufeff", "\ufffd", "\uffff", "😀", "\u{10ffff}"];

/** Text of all sorts: plain, with characters that JSON escapes, and beyond ASCII. */
export function randomText(random: Random, length: number): string {
  const pieces = random.pick([
    LETTERS,
    [...LETTERS, ...SPECIAL],
    [...LETTERS, ...FOREIGN],
    [...LETTERS, ...SPECIAL, ...FOREIGN],
  ]);
  return random.text(random.size(0, length), pieces);
}

/** A type name of all sorts. */
export function randomName(random: Random, length: number): string {
  return `t${randomText(random, length).replaceAll("\0", "\u0001")}`;
}

/** JSON objects whose keys keep the order in which they are listed. */
type Json = string | number | null | boolean | Json[] | { [key: string]: Json };

/** A value in some legal JSON form: white space, other order of keys, needless escapes. */
export function looseJson(random: Random, value: Json): string {
  const space = (): string => random.text(random.size(0, 2), [" ", "\t", "\r"]);
  const text = (json: Json): string => {
    if (typeof json === "string") return looseString(random, json);
    if (typeof json !== "object" || json === null) return JSON.stringify(json);
    if (Array.isArray(json))
      return `[${json.map((item) => space() + text(item)).join()}${space()}]`;
    const members = Object.entries(json).toSorted(() => (random.chance(0.5) ? -1 : 1));
    const parts = members.map(
      ([key, item]) => `${space()}${looseString(random, key)}${space()}:${space()}${text(item)}`,
    );
    return `{${parts.join(`${space()},`)}${space()}}`;
  };
  return space() + text(value) + space();
}

function looseString(random: Random, text: string): string {
  const escape = (unit: string): string => {
    const hex = unit.charCodeAt(0).toString(16).padStart(4, "0");
    return `\\u${random.chance(0.5) ? hex : hex.toUpperCase()}`;
  };
  const probability = random.pick([0, 0.05, 0.5, 1]);
  let quoted = "";
  for (const character of text) {
    const plain = JSON.stringify(character).slice(1, -1);
    if (random.chance(probability)) quoted += character.split("").map(escape).join("");
    else quoted += character === "/" && random.chance(0.5) ? "\\/" : plain;
  }
  return `"${quoted}"`;
}
