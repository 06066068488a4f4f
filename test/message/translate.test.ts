import { describe, expect, test } from "bun:test";

import { MAX_VEECLE_LINE_BYTES } from "../../src/limits.ts";
import type { Dialect, MessageReader } from "../../src/message.ts";
import { TypeName, TypeTable } from "../../src/message/typename.ts";
import { VeecleReader } from "../../src/message/veecle.ts";
import { Translator } from "../../src/message/translate.ts";
import {
  Collector,
  nativeFrame,
  randomName,
  randomText,
  readMessage,
  veecleLine,
} from "../support/messages.ts";
import { property, type Random } from "../support/random.ts";

const MAX_LINE = MAX_VEECLE_LINE_BYTES + 1;

interface Result {
  bytes: Buffer;
  count: number;
  notUtf8: number;
  oversize: number;
}

/** Translates messages of one type that stand in one chunk, in as many calls as it takes. */
function translate(
  typeName: string,
  from: Dialect,
  messages: readonly Buffer[],
  translator: Translator = new Translator(),
): Result {
  const before = Buffer.from("before");
  const chunk = Buffer.concat([before, ...messages, Buffer.from("behind")]);
  const end = chunk.length - 6;
  const longest = Math.max(0, ...messages.map((message) => message.length));
  const result = { count: 0, notUtf8: 0, oversize: 0 };
  const parts: Buffer[] = [];
  for (let at = before.length; at < end;) {
    const next = translator.translate(new TypeName(typeName), from, chunk, at, end, longest);
    expect(next).toBeGreaterThan(at);
    at = next;
    parts.push(Buffer.from(translator.bytes));
    result.count += translator.count;
    result.notUtf8 += translator.notUtf8;
    result.oversize += translator.oversize;
  }
  const bytes = Buffer.concat(parts);
  return { bytes, ...result };
}

const alone = (bytes: Buffer): Result => ({ bytes, count: 1, notUtf8: 0, oversize: 0 });
const none = { bytes: Buffer.alloc(0), count: 0, notUtf8: 0, oversize: 0 };

describe("Translator (P-32)", () => {
  const crossings: [what: string, payload: string, value: string][] = [
    ["nothing", "", '""'],
    ["JSON", '{"value":7}', '"{\\"value\\":7}"'],
    ["quotes and backslashes", '"\\"', '"\\"\\\\\\""'],
    ["what looks like an escape", "\\u0041\\n", '"\\\\u0041\\\\n"'],
    ["newlines", "a\r\nb", '"a\\r\\nb"'],
    ["control characters", "\0\u001f\b\f\t", '"\\u0000\\u001f\\b\\f\\t"'],
    ["characters that need no escape", "\u007f/\u2028", '"\u007f/\u2028"'],
    ["four bytes of UTF-8", "😀\u{10ffff}", '"😀\u{10ffff}"'],
    ["bytes that are quotes but for one bit", "\u00a2\u00dc\u0722", '"\u00a2\u00dc\u0722"'],
    ["a byte order mark", "\ufeffa", '"\ufeffa"'],
    ["a replacement character", "\ufffd", '"\ufffd"'],
  ];
  test.each(crossings)("takes %s from one dialect to the other and back", (_, payload, value) => {
    for (const padding of ["", "x", "xx", "xxx"]) {
      const native = nativeFrame(1, 'a::"T"', padding + payload);
      const line = Buffer.from(
        `{"Storable":{"type_name":"a::\\"T\\"","value":"${padding}${value.slice(1)}}}\n`,
      );
      expect(translate('a::"T"', "native", [native])).toEqual(alone(line));
      expect(translate('a::"T"', "veecle", [line])).toEqual(alone(native));
    }
  });

  test("takes every single byte that is text, at every place of a word", () => {
    for (let code = 0; code < 0x100; code++) {
      for (const padding of ["", "x", "xx", "xxx"]) {
        const payload = `${padding}${String.fromCodePoint(code)}yyyyy`;
        const [native, line] = [nativeFrame(1, "T", payload), veecleLine("T", payload)];
        expect(translate("T", "native", [native]).bytes).toEqual(line);
        expect(translate("T", "veecle", [line]).bytes).toEqual(native);
      }
    }
  });

  property("keeps type names and payloads, in order", 1_000, (random) => {
    const typeName = randomName(random, 60);
    const payloads = Array.from({ length: random.int(1, 8) }, () => randomText(random, 300));
    const frames = payloads.map((payload) => nativeFrame(1, typeName, payload));
    const lines = payloads.map((payload) => veecleLine(typeName, payload));
    const there = translate(typeName, "native", frames);
    expect(there).toEqual({ ...none, bytes: Buffer.concat(lines), count: payloads.length });
    const back = translate(typeName, "veecle", lines);
    expect(back).toEqual({ ...none, bytes: Buffer.concat(frames), count: payloads.length });
  });

  property("reads lines in every form in which a reader hands them on", 1_000, (random) => {
    const typeName = randomName(random, 20);
    const pieces = ["a", "é", "😀", "\\/", "\\n", "\\\\", '\\"', "\\b", "\\u0001", "\\u00e9"];
    const value = random.text(random.size(0, 60), pieces);
    const sink = new Collector();
    const it: MessageReader = new VeecleReader(new TypeTable(), 10_000, sink);
    const name = JSON.stringify(typeName);
    it.push(Buffer.from(`{"Storable":{"type_name":${name},"value":"${value}"}}\n`));
    const [run] = sink.runs;
    if (run === undefined) throw new Error("nothing was handed on");
    const line = run.chunk.subarray(run.start, run.end);
    const frame = nativeFrame(1, typeName, JSON.parse(`"${value}"`) as string);
    expect(translate(typeName, "veecle", [line])).toEqual(alone(frame));
  });

  test.each(["ff", "80", "c3", "c080", "eda080", "f4908080", "f09f98"])(
    "leaves out a payload of 0x%s, which is not UTF-8, and no other",
    (hex) => {
      const good = nativeFrame(1, "T", "😀");
      for (const payload of [hex, `616161${hex}`, `${hex}616161`]) {
        const bad = nativeFrame(1, "T", Buffer.from(payload, "hex"));
        const line = veecleLine("T", "😀");
        expect(translate("T", "native", [good, bad, good])).toEqual({
          bytes: Buffer.concat([line, line]),
          count: 2,
          notUtf8: 1,
          oversize: 0,
        });
      }
    },
  );

  test("does not complete a character with the next message", () => {
    const halves = ["e2", "82ac"].map((hex) => nativeFrame(1, "T", Buffer.from(hex, "hex")));
    expect(translate("T", "native", halves)).toEqual({ ...none, notUtf8: 2 });
  });

  const ROOM = MAX_VEECLE_LINE_BYTES - (veecleLine("T", "").length - 1);
  const fillers: [what: string, piece: string, bytes: number][] = [
    ["plain text", "x", 1],
    ["two bytes of UTF-8", "é", 2],
    ["quotes", '"', 2],
    ["control characters", "\u0001", 6],
  ];
  test.each(fillers)(
    "writes lines of 2048 bytes and none of 2049: %s (P-27)",
    (_, piece, bytes) => {
      const fits = piece.repeat(ROOM / bytes).padEnd(piece.length * Math.floor(ROOM / bytes), "x");
      const exact = fits + "x".repeat(ROOM - Math.floor(ROOM / bytes) * bytes);
      expect(veecleLine("T", exact)).toHaveLength(MAX_LINE);
      const frames = [exact, `${exact}x`, "after"].map((payload) => nativeFrame(1, "T", payload));
      expect(translate("T", "native", frames)).toEqual({
        bytes: Buffer.concat([veecleLine("T", exact), veecleLine("T", "after")]),
        count: 2,
        notUtf8: 0,
        oversize: 1,
      });
    },
  );

  test("writes frames of any size", () => {
    const payload = '"x'.repeat(500_000);
    expect(translate("T", "veecle", [veecleLine("T", payload)])).toEqual(
      alone(nativeFrame(1, "T", payload)),
    );
  });

  test("leaves out frames of a megabyte, and goes on behind them", () => {
    const huge = nativeFrame(1, "T", Buffer.alloc(2 ** 20 - 10, 1));
    expect(translate("T", "native", [huge, nativeFrame(1, "T", "7"), huge])).toEqual({
      bytes: veecleLine("T", "7"),
      count: 1,
      notUtf8: 0,
      oversize: 2,
    });
  });

  test("knows the longest legal type name, also if every letter is escaped", () => {
    for (const typeName of ["x".repeat(1_024), '"'.repeat(900), "\u0001".repeat(300)]) {
      const [native, line] = [nativeFrame(1, typeName, "7"), veecleLine(typeName, "7")];
      expect(translate(typeName, "native", [native])).toEqual(alone(line));
      expect(translate(typeName, "veecle", [line])).toEqual(alone(native));
    }
    const tooLong = nativeFrame(1, '"'.repeat(1_024), "7");
    expect(translate('"'.repeat(1_024), "native", [tooLong])).toEqual({ ...none, oversize: 1 });
  });

  test("drops the flags, which belong to the frame", () => {
    const line = translate("T", "native", [nativeFrame(1, "T", "7", 0xff)]).bytes;
    expect(translate("T", "veecle", [line])).toEqual(alone(nativeFrame(1, "T", "7", 0)));
  });

  property("translates many messages in several calls, one translator for all", 5, (random) => {
    const translator = new Translator();
    for (const from of ["native", "veecle", "native"] as const) {
      const payloads = Array.from({ length: 3_000 }, () => randomPayload(random));
      const [frames, lines] = [
        payloads.map((payload) => nativeFrame(1, "T", payload)),
        payloads.map((payload) => veecleLine("T", payload)),
      ];
      const [there, back] = from === "native" ? [frames, lines] : [lines, frames];
      const fitting = back.filter((line) => from === "veecle" || line.length <= MAX_LINE);
      const result = translate("T", from, there, translator);
      expect(result.bytes.equals(Buffer.concat(fitting))).toBe(true);
      expect([result.count, result.oversize]).toEqual([
        fitting.length,
        back.length - fitting.length,
      ]);
    }
  });

  test("tells whether bytes lie in its block", () => {
    const translator = new Translator();
    translate("T", "native", [nativeFrame(1, "T", "7")], translator);
    expect(translator.owns(translator.bytes)).toBe(true);
    expect(translator.owns(Buffer.from(translator.bytes))).toBe(false);
    expect(readMessage(translator.bytes, 0).payload.toString()).toBe("7");
  });
});

function randomPayload(random: Random): string {
  const piece = random.pick(["x", "é", '"', "\u0001", '{"value":7}']);
  return piece.repeat(random.size(0, 3_000 / piece.length));
}
