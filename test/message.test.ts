import { describe, expect, test } from "bun:test";

import {
  MAX_FRAME_BYTES,
  MAX_JSON_DEPTH,
  MAX_TYPE_NAME_BYTES,
  TYPE_TABLE_SLOTS,
} from "../src/limits.ts";
import {
  datagramOf,
  decodeDatagram,
  type Dialect,
  encodeNative,
  KIND,
  messageEnd,
  type MessageReader,
  type Run,
} from "../src/message.ts";
import { NativeReader } from "../src/message/native.ts";
import { type TypeName, TypeTable } from "../src/message/typename.ts";
import { VeecleReader } from "../src/message/veecle.ts";
import {
  Collector,
  type Data,
  looseJson,
  nativeFrame,
  randomName,
  randomText,
  strictJson,
  veecleLine,
} from "./support/messages.ts";
import { cutBy, property, type Random } from "./support/random.ts";
import { refusal } from "./support/refusal.ts";

const ID = "0195fc7b-33e6-70e3-bee1-ac515185fac7";

function reader(dialect: Dialect, sink: Collector, max: number = MAX_FRAME_BYTES): MessageReader {
  const types = new TypeTable();
  return dialect === "native"
    ? new NativeReader(types, max, sink)
    : new VeecleReader(types, max, sink);
}

/** What a reader hands on of a stream, and the refusal that ended it. */
function read(
  dialect: Dialect,
  chunks: readonly (Buffer | string)[],
  max?: number,
): { sink: Collector; refused: string | undefined } {
  const sink = new Collector();
  const it = reader(dialect, sink, max);
  expect(it.dialect).toBe(dialect);
  const copies = chunks.map((chunk) => Buffer.from(chunk as string));
  let done = false;
  const push = (): void => {
    for (const chunk of copies) it.push(chunk);
    done = true;
  };
  let refused: string | undefined;
  try {
    push();
  } catch (error) {
    refused = refusal(() => {
      throw error;
    });
  }
  expect(done).toBe(refused === undefined);
  return { sink, refused };
}

/** The ways in which the tests cut a stream. */
function cuts(random: Random, stream: Buffer): Buffer[][] {
  return [[stream], random.cut(stream), random.cut(stream), cutBy(stream, () => 1)];
}

function summary(sink: Collector): unknown {
  const { messages, telemetries, controls, hellos, skips, order } = sink;
  return { messages, telemetries, controls, hellos, skips, order };
}

const data = (typeName: string, payload: string | Buffer): Data => ({
  typeName,
  payload: Buffer.from(payload as string),
});

/** A stream of messages of all kinds in one dialect, and what it means. */
function randomStream(random: Random, dialect: Dialect): { stream: Buffer; meant: Collector } {
  const meant = new Collector();
  const parts: Buffer[] = [];
  const names = Array.from({ length: random.int(1, 3) }, () => randomName(random, 30));
  for (let count = random.int(0, 30); count > 0; count--) {
    const add = dialect === "native" ? addNative : addVeecle;
    parts.push(add(random, meant, random.pick(names)));
  }
  return { stream: Buffer.concat(parts), meant };
}

function addNative(random: Random, meant: Collector, typeName: string): Buffer {
  const kind = random.pick([1, 1, 1, 1, 2, 3, 4, 5, 6, random.int(7, 255)]);
  const flags = random.pick([0, 0, 0, random.int(0, 255)]);
  if (kind === KIND.data) {
    const payload = random.chance(0.5)
      ? Buffer.from(randomText(random, 300))
      : random.bytes(random.size(0, 300));
    meant.messages.push({ typeName, payload });
    meant.order.push(typeName);
    return nativeFrame(kind, typeName, payload, flags);
  }
  if (kind === KIND.telemetry) {
    const json = `{"message":\n${looseJson(random, randomText(random, 200))}}`;
    meant.telemetries.push(json.replaceAll("\n", " "));
    return nativeFrame(kind, "", json, flags);
  }
  const value = { StopRuntime: { id: randomText(random, 40) } };
  if (kind === KIND.hello) {
    meant.hellos.push(value);
    meant.order.push("hello");
  } else if (kind === KIND.controlRequest) {
    meant.controls.push(value);
    meant.order.push("control");
  } else meant.skips.push(`frame of kind ${kind}`);
  return nativeFrame(kind, "", looseJson(random, value), flags);
}

function addVeecle(random: Random, meant: Collector, typeName: string): Buffer {
  const ending = random.pick(["\n", "\n", "\r\n"]);
  const value = randomText(random, 300);
  const kind = random.pick(["usual", "usual", "usual", "loose", "extra", "telemetry", "control"]);
  switch (kind) {
    case "usual":
    case "loose":
    case "extra": {
      meant.messages.push(data(typeName, value));
      meant.order.push(typeName);
      if (kind === "usual") return veecleLine(typeName, value);
      const extra = kind === "extra" ? { since: [1, { id: null }], __proto: value } : {};
      const fields = { type_name: typeName, value, ...extra };
      return Buffer.from(looseJson(random, { Storable: fields }) + ending);
    }
    case "telemetry": {
      const message = `{"thread_id":"1","message":${JSON.stringify(value)},"time":12345678901234567890.10}`;
      meant.telemetries.push(message);
      const [before, after] = [random.pick(["", " "]), random.pick(["", " ", "\t"])];
      return Buffer.from(`{${before}"Telemetry":${after}${message}${after}}${before}${ending}`);
    }
    default: {
      if (random.chance(0.2)) {
        meant.skips.push("ControlResponse");
        return Buffer.from(`{"ControlResponse":"Started"}${ending}`);
      }
      const request = { StopRuntime: { id: value } };
      meant.controls.push(request);
      meant.order.push("control");
      return Buffer.from(looseJson(random, { ControlRequest: request }) + ending);
    }
  }
}

describe.each(["native", "veecle"] as const)("a reader of the %s dialect", (dialect) => {
  property(
    "hands on the same messages however the stream is cut (P-4, P-25, P-26, P-28, P-29)",
    150,
    (random) => {
      const { stream, meant } = randomStream(random, dialect);
      for (const chunks of cuts(random, stream)) {
        const { sink, refused } = read(dialect, chunks);
        expect(refused).toBeUndefined();
        expect(summary(sink)).toEqual(summary(meant));
      }
    },
  );

  property("never writes again to what it handed on", 100, (random) => {
    const { stream, meant } = randomStream(random, dialect);
    expect(read(dialect, random.cut(stream)).sink.again()).toEqual(meant.messages);
  });

  property("hands on neighbouring messages of one type as one run", 100, (random) => {
    const lines: Buffer[] = [];
    const runs: [typeName: string, count: number][] = [];
    for (let i = random.int(1, 10); i > 0; i--) {
      const [typeName, count] = [`t${i}`, random.int(1, 20)];
      runs.push([typeName, count]);
      for (let n = count; n > 0; n--) {
        const payload = random.text(random.size(0, 100), ["a", "é", '"', "\\", "\n"]);
        lines.push(
          dialect === "native" ? nativeFrame(1, typeName, payload) : veecleLine(typeName, payload),
        );
      }
    }
    const { sink } = read(dialect, [Buffer.concat(lines)]);
    expect(sink.runs.map((run) => [run.type.text, run.count])).toEqual(runs);
  });

  test("copies nothing that arrives whole and in the usual form", () => {
    const parts = [data("a", "1"), data("b", "é"), data("b", "\n")].map(({ typeName, payload }) =>
      dialect === "native"
        ? nativeFrame(1, typeName, payload)
        : veecleLine(typeName, payload.toString()),
    );
    const chunk = Buffer.concat(parts);
    const sink = new Collector();
    reader(dialect, sink).push(chunk);
    expect(sink.runs.map((run) => run.chunk === chunk)).toEqual([true, true]);
  });

  test("gives the same name the same type", () => {
    const line = dialect === "native" ? nativeFrame(1, "a", "") : veecleLine("a", "");
    const other = dialect === "native" ? nativeFrame(1, "b", "") : veecleLine("b", "");
    const { sink } = read(dialect, [line, other, line, other]);
    const [a, b, again, bAgain] = sink.runs.map((run) => run.type);
    expect(again).toBe(a as TypeName);
    expect(bAgain).toBe(b as TypeName);
    expect(a === b).toBe(false);
  });

  property("keeps more names apart than it can remember", 1, (random) => {
    const names = Array.from(
      { length: 3 * TYPE_TABLE_SLOTS },
      (_, i) => `${randomName(random, 12)}${i}`,
    );
    const order = [...names, ...Array.from(names, () => random.pick(names))];
    const stream = Buffer.concat(
      order.map((name) => (dialect === "native" ? nativeFrame(1, name, "") : veecleLine(name, ""))),
    );
    const { sink, refused } = read(dialect, [stream]);
    expect(refused).toBeUndefined();
    expect(sink.order).toEqual(order);
  });

  const names: [what: string, letter: string][] = [
    ["ASCII", "x"],
    ["two bytes each", "é"],
    ["four bytes each", "😀"],
    ["characters that JSON escapes", '"'],
    ["control characters", "\u0001"],
  ];
  test.each(names)("takes type names of 1 to 1024 bytes: %s", (_, letter) => {
    const message = (name: string): Buffer =>
      dialect === "native" ? nativeFrame(1, name, "7") : veecleLine(name, "7");
    const longest = letter.repeat(MAX_TYPE_NAME_BYTES / Buffer.byteLength(letter));
    for (const name of ["x", letter, longest.slice(letter.length), longest]) {
      const { sink, refused } = read(dialect, [message(name)]);
      expect(refused).toBeUndefined();
      expect(sink.order).toEqual([name]);
    }
    for (const name of [`${longest}x`, "", longest.repeat(60)]) {
      const { sink, refused } = read(dialect, [message("a"), message(name)]);
      expect(refused).toStartWith("bad_request: Cannot read message: ");
      expect(sink.order).toEqual(["a"]);
    }
  });

  test("refuses a type name with a NUL (P-12)", () => {
    for (const name of ["\0", "a\0", "a::longer::name\0", "\0a::longer::name"]) {
      const message = dialect === "native" ? nativeFrame(1, name, "7") : veecleLine(name, "7");
      expect(read(dialect, [message]).refused).toBe(
        dialect === "native"
          ? "bad_request: Cannot read message: the type name cannot be used: it contains a NUL character"
          : "bad_request: Cannot read message: Storable.type_name cannot be used: it contains a NUL character",
      );
    }
  });

  property("knows any name again, whatever its bytes are", 300, (random) => {
    const name = random.text(random.int(1, 12), ["\u007f", "\u007f😀", "ÿ", "a", "\u{10ffff}"]);
    const message = dialect === "native" ? nativeFrame(1, name, "7") : veecleLine(name, "7");
    const { sink } = read(dialect, [Buffer.concat([message, message]), message]);
    expect(sink.runs.map((run) => run.count)).toEqual([2, 1]);
    expect(sink.runs[0]?.type).toBe(sink.runs[1]?.type as TypeName);
  });

  test("forgets the names of a flood, also while the first of them is kept (R24)", async () => {
    const types: WeakRef<TypeName>[] = [];
    const kept: TypeName[] = [];
    const sink = new Collector();
    sink.data = (run) => {
      if (kept.length === 0) kept.push(run.type);
      types.push(new WeakRef(run.type));
    };
    const it = reader(dialect, sink);
    const count = 6 * TYPE_TABLE_SLOTS;
    for (let i = 0; i < count; i++) {
      it.push(dialect === "native" ? nativeFrame(1, `${i}`, "") : veecleLine(`${i}`, ""));
    }
    await new Promise(setImmediate); // until then every WeakRef holds what it was made of
    Bun.gc(true);
    expect(types).toHaveLength(count);
    expect(kept[0]?.text).toBe("0");
    const alive = types.filter((type) => type.deref() !== undefined).length;
    expect(alive).toBeLessThan(2 * TYPE_TABLE_SLOTS);
  });

  test("takes names that are also names of JavaScript", () => {
    const names = ["__proto__", "constructor", "toString", "none", "Storable"];
    const { sink } = read(
      dialect,
      names.map((name) => (dialect === "native" ? nativeFrame(1, name, "") : veecleLine(name, ""))),
    );
    expect(sink.order).toEqual(names);
  });
});

describe("NativeReader", () => {
  const frame = (hex: string): Buffer => Buffer.from(hex.replaceAll(" ", ""), "hex");

  test("takes a data frame apart", () => {
    const { sink } = read("native", [frame("00000008 01 00 0002 613a 0000")]);
    expect(sink.messages).toEqual([data("a:", "\0\0")]);
  });

  test("takes a frame that has a name and nothing behind it", () => {
    expect(read("native", [frame("00000005 01 00 0001 61")]).sink.messages).toEqual([
      data("a", ""),
    ]);
  });

  test("hands on a frame with unknown flags as it came (P-29, P-31)", () => {
    const bytes = frame("00000005 01 ff 0001 61");
    const { sink } = read("native", [bytes]);
    const [run] = sink.runs;
    expect(run?.chunk.subarray(run.start, run.end)).toEqual(bytes);
  });

  describe("a large frame that comes in several chunks", () => {
    const large = "x".repeat(300_000);

    property("is one message among the others, however it is cut (P-4, P-28)", 40, (random) => {
      const meant = Array.from({ length: random.int(1, 8) }, (_, i) =>
        data(
          random.pick(["a", "b"]),
          random.chance(0.4) ? `${i}`.padEnd(random.int(60_000, 250_000)) : `${i}`,
        ),
      );
      const stream = Buffer.concat(meant.map((one) => nativeFrame(1, one.typeName, one.payload)));
      const longest = random.pick([2_000, 70_000, 300_000]);
      const { sink } = read(
        "native",
        cutBy(stream, () => random.int(1, longest)),
      );
      const brief = ({ typeName, payload }: Data): string =>
        `${typeName} ${payload.length} ${Bun.hash(payload)}`;
      expect(sink.messages.map(brief)).toEqual(meant.map(brief));
      expect(sink.again().map(brief)).toEqual(meant.map(brief));
    });

    test("is not copied, and handed on alone", () => {
      const frames = [
        nativeFrame(1, "a", "1"),
        nativeFrame(1, "a", large),
        nativeFrame(1, "a", "2"),
      ];
      const chunks = cutBy(Buffer.concat(frames), () => 120_000);
      const sink = new Collector();
      const it = reader("native", sink);
      for (const chunk of chunks) it.push(chunk);
      expect(sink.runs.map(({ count, rest }) => [count, rest.length])).toEqual([
        [1, 0],
        [1, 2],
        [1, 0],
      ]);
      const { chunk, rest } = sink.runs[1] as Run;
      expect([chunk, ...rest].map(({ buffer }) => buffer)).toEqual(
        chunks.map(({ buffer }) => buffer),
      );
    });

    test("is handed on with its last byte, and not before", () => {
      const frame = nativeFrame(1, "a", large);
      const sink = new Collector();
      const it = reader("native", sink);
      it.push(Buffer.from(frame.subarray(0, 100_000)));
      it.push(Buffer.from(frame.subarray(100_000, -1)));
      expect(sink.messages).toHaveLength(0);
      it.push(Buffer.from(frame.subarray(-1)));
      expect(sink.messages).toHaveLength(1);
    });

    test("may be of any kind", () => {
      const json = JSON.stringify({ a: large });
      const kinds = [KIND.telemetry, KIND.controlRequest, 99];
      const stream = Buffer.concat(kinds.map((kind) => nativeFrame(kind, "", json)));
      const { sink } = read(
        "native",
        cutBy(stream, () => 120_000),
      );
      expect(sink.telemetries).toEqual([json]);
      expect(sink.controls).toEqual([{ a: large }]);
      expect(sink.skips).toEqual(["frame of kind 99"]);
    });

    test("is refused for its type name as any other", () => {
      const cases: [name: string, fault: string][] = [
        ["", "a type name has 1 to 1024 bytes, this one 0"],
        ["x".repeat(MAX_TYPE_NAME_BYTES + 1), "a type name has 1 to 1024 bytes, this one 1025"],
      ];
      for (const [name, fault] of cases) {
        const chunks = cutBy(nativeFrame(1, name, large), () => 120_000);
        expect(read("native", chunks).refused).toBe(`bad_request: Cannot read message: ${fault}`);
      }
    });
  });

  test("ignores the type name of a frame that has none to have", () => {
    const { sink } = read("native", [nativeFrame(KIND.telemetry, "abc", '{"a":1}')]);
    expect(sink.telemetries).toEqual(['{"a":1}']);
  });

  test.each([-1, 0, 1])("holds the limit of a frame, by %i bytes", (more) => {
    const max = 5_000;
    const bytes = nativeFrame(1, "a", Buffer.alloc(max + more - 5, "x"));
    expect(bytes.readUInt32BE(0)).toBe(max + more);
    for (const chunks of [[bytes], cutBy(bytes, () => 100)]) {
      const { sink, refused } = read("native", chunks, max);
      if (more <= 0) expect([sink.messages.length, refused]).toEqual([1, undefined]);
      else {
        expect(refused).toBe(
          "limit_exceeded: Cannot read frame: its size is 5001 bytes, more than 5000",
        );
      }
    }
  });

  const good = nativeFrame(1, "good", "7");
  const bad: [fault: string, bytes: Buffer, refused: string][] = [
    [
      "a size of 0",
      frame("00000000"),
      "bad_request: Cannot read frame: its size is 0 bytes, less than 4",
    ],
    [
      "a size of 3",
      frame("00000003 010000"),
      "bad_request: Cannot read frame: its size is 3 bytes, less than 4",
    ],
    [
      "a size of 4 GiB",
      frame("ffffffff"),
      "limit_exceeded: Cannot read frame: its size is 4294967295 bytes, more than 1048576",
    ],
    [
      "a Veecle line",
      veecleLine("a", "1"),
      "limit_exceeded: Cannot read frame: its size is 2065847156 bytes, more than 1048576",
    ],
    [
      "data without a name",
      frame("00000005 01 00 0000 61"),
      "bad_request: Cannot read message: a type name has 1 to 1024 bytes, this one 0",
    ],
    [
      "a name of 1025 bytes",
      nativeFrame(1, "x".repeat(1_025), ""),
      "bad_request: Cannot read message: a type name has 1 to 1024 bytes, this one 1025",
    ],
    [
      "a name that is longer than its frame",
      frame("00000005 01 00 0002 61"),
      "bad_request: Cannot read message: a frame is shorter than its type name",
    ],
    [
      "the same in a frame without a name",
      frame("00000004 05 00 ffff"),
      "bad_request: Cannot read message: a frame is shorter than its type name",
    ],
    [
      "a name that is not UTF-8",
      nativeFrame(1, Buffer.from([0x61, 0xff]), ""),
      "bad_request: Cannot read message: the type name is not valid UTF-8",
    ],
    [
      "a name with an encoded surrogate",
      nativeFrame(1, frame("eda080"), ""),
      "bad_request: Cannot read message: the type name is not valid UTF-8",
    ],
    [
      "a name in overlong UTF-8",
      nativeFrame(1, frame("c080"), ""),
      "bad_request: Cannot read message: the type name is not valid UTF-8",
    ],
    [
      "a control request that is no JSON",
      nativeFrame(KIND.controlRequest, "", "x"),
      'bad_request: Cannot read message: it is not valid JSON (Unexpected identifier "x")',
    ],
    [
      "a control request that is empty",
      nativeFrame(KIND.controlRequest, "", ""),
      "bad_request: Cannot read message: it is not valid JSON (Unexpected EOF)",
    ],
    [
      "a control request that is not UTF-8",
      nativeFrame(KIND.controlRequest, "", frame("22ff22")),
      "bad_request: Cannot read message: it is not valid UTF-8",
    ],
    [
      "a hello of 65 levels",
      nativeFrame(KIND.hello, "", `${"[".repeat(65)}${"]".repeat(65)}`),
      "bad_request: Cannot read message: nested deeper than 64 levels",
    ],
    [
      "empty telemetry",
      nativeFrame(KIND.telemetry, "", ""),
      "bad_request: Cannot read message: telemetry is not an object",
    ],
    [
      "telemetry that is a list",
      nativeFrame(KIND.telemetry, "", "[]"),
      "bad_request: Cannot read message: telemetry is not an object",
    ],
    [
      "telemetry that is not UTF-8",
      nativeFrame(KIND.telemetry, "", frame("7bff7d")),
      "bad_request: Cannot read message: telemetry is not valid UTF-8",
    ],
  ];
  test.each(bad)("refuses %s, and hands on what came before it", (_, bytes, refused) => {
    const stream = Buffer.concat([good, good, bytes, good]);
    for (const chunks of [[stream], cutBy(stream, () => 1), cutBy(stream, () => 30)]) {
      const result = read("native", chunks);
      expect(result.refused).toBe(refused);
      expect(result.sink.order).toEqual(["good", "good"]);
    }
  });

  test.each(['\n{"a":1}', '{"a":1}\n', ' \t\r\n{"a":1}\r\n'])(
    "takes telemetry with white space around it: %j",
    (payload) => {
      const { sink, refused } = read("native", [nativeFrame(KIND.telemetry, "", payload)]);
      expect(refused).toBeUndefined();
      expect(sink.telemetries.map((json) => json.trim())).toEqual(['{"a":1}']);
    },
  );

  property(
    "refuses what an independent reader refuses, and nothing else (P-23, P-28)",
    1_500,
    (random) => {
      const { stream } = randomStream(random, "native");
      const damaged = damage(random, stream);
      const expected = nativeOracle(damaged, 1_000);
      const { sink, refused } = read("native", random.cut(damaged), 1_000);
      expect(refused !== undefined).toBe(expected.isRefused);
      expect(sink.messages).toEqual(expected.messages);
    },
  );
});

describe("VeecleReader", () => {
  const storable = (fields: string): string => `{"Storable":{${fields}}}\n`;

  const forms: [form: string, line: string, value: string][] = [
    ["the usual one", storable('"type_name":"T","value":"{\\"value\\":7}"'), '{"value":7}'],
    ["an empty value", storable('"type_name":"T","value":""'), ""],
    ["return and newline", storable('"type_name":"T","value":"7"').replace("\n", "\r\n"), "7"],
    ["white space", ' { "Storable" :\t{ "type_name": "T", "value" : "7" }\r} \n', "7"],
    ["another order", storable('"value":"7","type_name":"T"'), "7"],
    ["an unknown key before", storable('"x":[{}],"type_name":"T","value":"7"'), "7"],
    ["an unknown key between", storable('"type_name":"T","x":"\\"}}","value":"7"'), "7"],
    ["an unknown key behind", storable('"type_name":"T","value":"7","x":null'), "7"],
    ["escapes in the keys", '{"\\u0053torable":{"type\\u005fname":"T","v\\u0061lue":"7"}}\n', "7"],
    ["escapes in the type name", storable('"type_name":"\\u0054","value":"7"'), "7"],
    [
      "every short escape",
      storable('"type_name":"T","value":"\\"\\\\\\/\\b\\f\\n\\r\\t"'),
      '"\\/\b\f\n\r\t',
    ],
    [
      "escapes of four digits",
      storable('"type_name":"T","value":"\\u00e9\\u0000\\u001F"'),
      "é\0\u001f",
    ],
    ["an escaped pair of surrogates", storable('"type_name":"T","value":"\\ud83D\\uDe00"'), "😀"],
    ["a surrogate pair as it is", storable('"type_name":"T","value":"😀"'), "😀"],
    [
      "characters that JavaScript escapes elsewhere",
      storable('"type_name":"T","value":"\u2028\u007f\ufeff"'),
      "\u2028\u007f\ufeff",
    ],
    [
      "what looks like the end in a value",
      storable('"type_name":"T","value":"\\"}}\\n\\\\"'),
      '"}}\n\\',
    ],
  ];
  test.each(forms)("takes %s", (_, line, value) => {
    const usual = veecleLine("T", "before").toString();
    const stream = Buffer.from(usual + line + line + usual);
    for (const chunks of [[stream], cutBy(stream, () => 1), cutBy(stream, () => 50)]) {
      const { sink, refused } = read("veecle", chunks);
      expect(refused).toBeUndefined();
      expect(sink.messages).toEqual(["before", value, value, "before"].map((v) => data("T", v)));
    }
  });

  const TOO_LONG =
    /^limit_exceeded: Cannot read (message: a )?line(:| is) (it is )?longer than 200 bytes$/;
  const ofLength: [what: string, before: string, after: string][] = [
    ["usual", '{"Storable":{"type_name":"T","value":"', '"}}'],
    ["escaped", '{"Storable":{"type_name":"T","value":"\\n', '"}}'],
    ["loose", ' {"Storable":{"type_name":"T","value":"', '"}}'],
    ["telemetry", '{"Telemetry":{"a":"', '"}}'],
    ["control", '{"ControlRequest":"', '"}'],
  ];
  for (const [what, before, after] of ofLength) {
    for (const [ending, end] of [
      ["newline", "\n"],
      ["return and newline", "\r\n"],
    ]) {
      test(`holds the limit of a ${what} line before ${ending}, not counting it`, () => {
        for (const more of [-1, 0, 1]) {
          const text = before.padEnd(200 + more - after.length, "x") + after;
          const bytes = Buffer.from(text + end);
          for (const chunks of [[bytes], cutBy(bytes, () => 1), cutBy(bytes, () => 150)]) {
            const { sink, refused } = read("veecle", chunks, 200);
            const handedOn = sink.order.length + sink.telemetries.length;
            if (more > 0) expect(refused).toMatch(TOO_LONG);
            else expect([refused, handedOn]).toEqual([undefined, 1]);
          }
        }
      });
    }
  }

  test("holds the limit of nesting", () => {
    const line = (depth: number): string =>
      `{"ControlRequest":${"[".repeat(depth - 1)}${"]".repeat(depth - 1)}}\n`;
    expect(read("veecle", [line(MAX_JSON_DEPTH)]).sink.controls).toHaveLength(1);
    expect(read("veecle", [line(MAX_JSON_DEPTH + 1)]).refused).toBe(
      "bad_request: Cannot read message: nested deeper than 64 levels",
    );
  });

  const bad: [fault: string, line: string | Buffer, reason: string | RegExp][] = [
    ["an empty line", "\n", /valid JSON/],
    ["an empty line with a return", "\r\n", /valid JSON/],
    ["a native frame", nativeFrame(1, "a", "\n"), /valid JSON/],
    ["a word", '"Storable"\n', "a line is not an object with exactly one key"],
    ["a list", "[]\n", "a line is not an object with exactly one key"],
    ["no key", "{}\n", "a line is not an object with exactly one key"],
    [
      "two keys",
      '{"Storable":{"type_name":"T","value":""},"x":1}\n',
      "a line is not an object with exactly one key",
    ],
    ["an unknown key", '{"Hello":{}}\n', 'unknown message "Hello"'],
    ["__proto__", '{"__proto__":{"Storable":1}}\n', 'unknown message "__proto__"'],
    ["two values", `${storable('"type_name":"T","value":""').trim()}{}\n`, /valid JSON/],
    ["Storable of a word", '{"Storable":"x"}\n', "Storable is not an object"],
    ["no type name", storable('"value":""'), "Storable.type_name is not a string"],
    [
      "a type name from __proto__",
      storable('"__proto__":{"type_name":"T"},"value":""'),
      "Storable.type_name is not a string",
    ],
    [
      "an empty type name",
      storable('"type_name":"","value":""'),
      "Storable.type_name cannot be used: it is empty",
    ],
    [
      "a type name with half a surrogate pair",
      storable('"type_name":"\\ud800","value":""'),
      "Storable.type_name cannot be used: it contains an unpaired surrogate",
    ],
    ["no value", storable('"type_name":"T"'), "Storable.value is not a string"],
    [
      "a value that is not text",
      storable('"type_name":"T","value":{"value":7}'),
      "Storable.value is not a string",
    ],
    [
      "half a surrogate pair",
      storable('"type_name":"T","value":"\\ud83d"'),
      "Storable.value contains an unpaired surrogate",
    ],
    [
      "the other half",
      storable('"type_name":"T","value":"\\ude00"'),
      "Storable.value contains an unpaired surrogate",
    ],
    [
      "surrogates in the wrong order",
      storable('"type_name":"T","value":"\\ude00\\ud83d"'),
      "Storable.value contains an unpaired surrogate",
    ],
    ["an unknown escape", storable('"type_name":"T","value":"\\v"'), /valid JSON/],
    ["an escape in hexadecimal", storable('"type_name":"T","value":"\\x41"'), /valid JSON/],
    ["an escape of three digits", storable('"type_name":"T","value":"\\u123"'), /valid JSON/],
    ["an escape without an end", storable('"type_name":"T","value":"\\"'), /valid JSON/],
    [
      "a quote that is not escaped",
      storable('"type_name":"T","value":"{"value":7}"'),
      /valid JSON/,
    ],
    ["a value without an end", '{"Storable":{"type_name":"T","value":"7}}\n', /valid JSON/],
    ["a missing brace", '{"Storable":{"type_name":"T","value":"7"}\n', /valid JSON/],
    ["a brace too many", '{"Storable":{"type_name":"T","value":"7"}}}\n', /valid JSON/],
    ["a comma too many", storable('"type_name":"T","value":"7",'), /valid JSON/],
    ["a newline within a value", storable('"type_name":"T","value":"a\nb"'), /valid JSON/],
    ["a tab that is not escaped", storable('"type_name":"T","value":"a\tb"'), /valid JSON/],
    ["a return that is not escaped", storable('"type_name":"T","value":"a\rb"'), /valid JSON/],
    ["a NUL", storable('"type_name":"T","value":"\0"'), /valid JSON/],
    ["a NUL behind the line", '{"Storable":{"type_name":"T","value":"7"}}\0\n', /valid JSON/],
    [
      "a control character in a type name",
      storable('"type_name":"a\u0001","value":"7"'),
      /valid JSON/,
    ],
    ["a byte order mark", `\ufeff${storable('"type_name":"T","value":"7"')}`, /valid JSON/],
    [
      "a value that is not UTF-8",
      invalid(storable('"type_name":"T","value":"#"')),
      "a line is not valid UTF-8",
    ],
    [
      "a type name that is not UTF-8",
      invalid(storable('"type_name":"#","value":"7"')),
      /not valid UTF-8/,
    ],
    [
      "a loose line that is not UTF-8",
      invalid(` ${storable('"type_name":"T","value":"#"')}`),
      "a line is not valid UTF-8",
    ],
    [
      "telemetry that is not UTF-8",
      invalid('{"Telemetry":{"a":"#"}}\n'),
      "a line is not valid UTF-8",
    ],
    ["telemetry that is no object", '{"Telemetry":7}\n', "telemetry is not an object"],
    ["telemetry without an end", '{"Telemetry":{"a":1}\n', /valid JSON/],
    ["a control request without an end", '{"ControlRequest":{\n', /valid JSON/],
  ];
  test.each(bad)("refuses %s, and hands on what came before it", (_, line, reason) => {
    const usual = veecleLine("T", "before");
    const loose = Buffer.from(` ${usual.toString()}`);
    const stream = Buffer.concat([usual, loose, Buffer.from(line as string), usual]);
    for (const chunks of [[stream], cutBy(stream, () => 1), cutBy(stream, () => 70)]) {
      const { sink, refused } = read("veecle", chunks);
      expect(refused).toMatch(
        typeof reason === "string" ? `bad_request: Cannot read message: ${reason}` : reason,
      );
      expect(sink.messages).toEqual([data("T", "before"), data("T", "before")]);
    }
  });

  const encodings: [encoding: string, hex: string][] = [
    ["a lone continuation byte", "80"],
    ["an overlong NUL", "c080"],
    ["an overlong slash", "e080af"],
    ["an encoded surrogate", "eda080"],
    ["a character beyond U+10FFFF", "f4908080"],
    ["a character that is cut", "e282"],
    ["five bytes", "f888808080"],
    ["0xff", "ff"],
  ];
  test.each(encodings)("refuses %s in a value, behind lines that are right", (_, hex) => {
    const right = veecleLine("T", "😀");
    const wrong = invalid(veecleLine("T", "a#b"), hex);
    const { sink, refused } = read("veecle", [Buffer.concat([right, wrong, right])]);
    expect(refused).toBe("bad_request: Cannot read message: a line is not valid UTF-8");
    expect(sink.messages).toEqual([data("T", "😀")]);
  });

  test("an unfinished character in one line is not completed by the next", () => {
    const first = invalid(veecleLine("T", "#"), "e2");
    const second = invalid(veecleLine("T", "#"), "82ac");
    expect(read("veecle", [Buffer.concat([first, second])]).refused).toContain("UTF-8");
  });

  property("hands on only what a strict parser accepts, and all of it (P-26)", 4_000, (random) => {
    const lines = Array.from({ length: random.int(1, 4) }, () => {
      const [type_name, value] = [randomName(random, 8), randomText(random, 40)];
      return random.chance(0.7)
        ? veecleLine(type_name, value)
        : Buffer.from(`${looseJson(random, { Storable: { type_name, value } })}\n`);
    });
    const damaged = damage(random, Buffer.concat(lines));
    const expected = veecleOracle(damaged, 2_000);
    for (const chunks of [random.cut(damaged), [damaged]]) {
      const { sink, refused } = read("veecle", chunks, 2_000);
      expect(refused !== undefined).toBe(expected.isRefused);
      expect(sink.messages).toEqual(expected.messages);
    }
  });

  test("takes a type name that was escaped from the next line as it is", () => {
    const line = veecleLine('a"b\\c\nd', '"');
    const { sink } = read("veecle", [` ${line.toString()}`, line, line]);
    expect(sink.messages).toEqual(new Array(3).fill(data('a"b\\c\nd', '"')));
  });

  test("hands telemetry on byte for byte", () => {
    const message = '{"n":12345678901234567890.1000,"m":"\\u0041\\/", "big":1e999 }';
    for (const line of [
      `{"Telemetry":${message}}\n`,
      `{"Telemetry":${message}}\r\n`,
      `{"Telemetry": ${message} }\n`,
      ` {\t"Telemetry" : ${message}} \r\n`,
      `{"\\u0054elemetry":${message}}\n`,
      '{"Telemetry":{}}\n',
    ]) {
      const { sink, refused } = read("veecle", [line]);
      expect(refused).toBeUndefined();
      expect(sink.telemetries).toEqual([line.includes("{}") ? "{}" : message]);
    }
  });

  test("telemetry of many spaces costs no more than other telemetry (R24)", () => {
    const line = Buffer.from(` {"Telemetry":{"a":"${" ".repeat(65_536)}"}}\n`);
    const start = performance.now();
    expect(read("veecle", [line]).sink.telemetries).toHaveLength(1);
    expect(performance.now() - start).toBeLessThan(300);
  });

  test.each([
    ' {"Telemetry":{"a":1},"Telemetry":{"b":2}}\n',
    '{"Telemetry" :{"a":1},"Telemetry":{"b":2}}\n',
  ])("telemetry is one object: %j", (line) => {
    const { sink } = read("veecle", [line]);
    for (const json of sink.telemetries) expect(() => strictJson(Buffer.from(json))).not.toThrow();
  });

  const lasts: [what: string, line: string, kind: string][] = [
    ["a message", '{"Storable":{"type_name":"T","value":"7"}}', "T"],
    ["a message before a return", '{"Storable":{"type_name":"T","value":"7"}}\r', "T"],
    ["telemetry", '{"Telemetry":{"a":{"b":{}}}}', "telemetry"],
    ["a control request", `{"ControlRequest":{"StopRuntime":{"id":"${ID}"}}}`, "control"],
  ];
  test.each(lasts)(
    "takes %s that lacks its newline when the stream ends (P-2)",
    (_, line, kind) => {
      const sink = new Collector();
      const it = reader("veecle", sink);
      const found = (): string[] => sink.order.concat(sink.telemetries.map(() => "telemetry"));
      it.push(Buffer.concat([veecleLine("before", "7"), Buffer.from(line)]));
      expect(found()).toEqual(["before"]);
      it.finish();
      expect(found()).toEqual(["before", kind]);
      it.finish();
      expect(found()).toEqual(["before", kind]);
    },
  );

  test("takes nothing of a last line that is cut or wrong (P-2, P-4)", () => {
    const wrong = ["hello", "{}", '{"Storable":{}}', `{"Telemetry":{"a":"${"x".repeat(179)}"}}`];
    const whole = lasts.map(([, line]) => line.trimEnd());
    const cut = whole.flatMap((line) => Array.from(line, (_, end) => line.slice(0, end)));
    for (const line of [...wrong, ...cut, '{"Telemetry":{"a":"\xff"}}']) {
      const sink = new Collector();
      const it = reader("veecle", sink, 200);
      it.push(Buffer.from(line, "latin1"));
      it.finish();
      expect([sink.order, sink.telemetries]).toEqual([[], []]);
    }
  });

  test("reads control requests in their place among the messages", () => {
    const request = `{"ControlRequest":{"StartRuntime":{"id":"${ID}","priority":null}}}\n`;
    const stream = Buffer.concat([veecleLine("a", ""), Buffer.from(request), veecleLine("b", "")]);
    const { sink } = read("veecle", [stream]);
    expect(sink.order).toEqual(["a", "control", "b"]);
    expect(sink.controls).toEqual([{ StartRuntime: { id: ID, priority: null } }]);
  });
});

describe("datagrams (P-41)", () => {
  test("are a line without its outer object", () => {
    const line = veecleLine("a::T", '{"value":7}');
    const chunk = Buffer.concat([Buffer.from("xx"), line, Buffer.from("yy")]);
    expect(datagramOf(chunk, 2, 2 + line.length).toString()).toBe(
      '{"type_name":"a::T","value":"{\\"value\\":7}"}',
    );
  });

  property("are read back as the line that they came from", 500, (random) => {
    const [typeName, value] = [randomName(random, 30), randomText(random, 300)];
    const line = veecleLine(typeName, value);
    const back = decodeDatagram(datagramOf(line, 0, line.length));
    expect(back.line).toEqual(line);
    expect(back.type.text).toBe(typeName);
    const loose = decodeDatagram(
      Buffer.from(looseJson(random, { value, x: 1, type_name: typeName })),
    );
    expect(loose.line).toEqual(line);
  });

  const bad: [fault: string, datagram: string | Buffer, reason: string | RegExp][] = [
    ["nothing", "", /valid JSON/],
    ["a line", veecleLine("T", "7"), "Storable.type_name is not a string"],
    ["a list", "[]", "Storable is not an object"],
    ["no value", '{"type_name":"T"}', "Storable.value is not a string"],
    ["two values", '{"type_name":"T","value":"7"}{}', /valid JSON/],
    ["what is not UTF-8", invalid('{"type_name":"T","value":"#"}'), "it is not valid UTF-8"],
    [
      "half a surrogate pair",
      '{"type_name":"T","value":"\\ud800"}',
      "Storable.value contains an unpaired surrogate",
    ],
    ["a native frame", nativeFrame(1, "T", "7"), /valid JSON/],
  ];
  test.each(bad)("are refused: %s", (_, datagram, reason) => {
    expect(refusal(() => decodeDatagram(Buffer.from(datagram as string)))).toMatch(reason);
  });
});

test("encodeNative() writes the frame of the protocol (P-28)", () => {
  const frame = encodeNative(KIND.notice, Buffer.from("ab"), Buffer.from("c"));
  expect(frame.toString("hex")).toBe("00000007060000026162" + "63");
  expect(encodeNative(255, Buffer.alloc(0), Buffer.alloc(0)).toString("hex")).toBe(
    "00000004ff000000",
  );
});

test("messageEnd() walks whole messages", () => {
  const native = Buffer.concat([nativeFrame(1, "a", "12"), nativeFrame(1, "b", "")]);
  expect(messageEnd("native", native, 0)).toBe(11);
  expect(messageEnd("native", native, 11)).toBe(native.length);
  const lines = Buffer.concat([veecleLine("a", "\n"), veecleLine("b", "")]);
  expect(messageEnd("veecle", lines, 0)).toBe(veecleLine("a", "\n").length);
  expect(messageEnd("veecle", lines, veecleLine("a", "\n").length)).toBe(lines.length);
});

/** Puts bytes in the place of `#`: as they are told, or one that is never UTF-8. */
function invalid(text: string | Buffer, hex: string = "ff"): Buffer {
  const bytes = Buffer.from(text as string);
  const at = bytes.indexOf("#");
  return Buffer.concat([bytes.subarray(0, at), Buffer.from(hex, "hex"), bytes.subarray(at + 1)]);
}

/** Changes, removes, inserts or repeats a few bytes, preferably those that matter. */
function damage(random: Random, stream: Buffer): Buffer {
  const pieces = [
    '"',
    "\\",
    "\\u",
    "\\ud83d",
    "{",
    "}",
    "}}",
    ":",
    ",",
    "\n",
    "\r\n",
    "\0",
    "\t",
    " ",
    "u",
    "0",
    "\x1f",
  ];
  let bytes = stream;
  for (let times = random.int(0, 3); times > 0; times--) {
    const at = random.int(0, bytes.length);
    const end = Math.min(bytes.length, at + random.size(0, 8));
    const piece = random.pick([
      Buffer.from(random.pick(pieces)),
      random.bytes(1),
      Buffer.from([random.int(0x80, 0xff)]),
      Buffer.alloc(0),
      Buffer.concat([bytes.subarray(at, end), bytes.subarray(at, end)]),
    ]);
    bytes = Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(end)]);
  }
  return bytes;
}

interface Verdict {
  messages: Data[];
  isRefused: boolean;
}

/** What a strict parser makes of a stream of lines up to the first bad one. */
function veecleOracle(stream: Buffer, max: number): Verdict {
  const messages: Data[] = [];
  for (let at = 0; at < stream.length;) {
    const newline = stream.indexOf("\n", at);
    if (newline < 0) return { messages, isRefused: stream.length - at > max + 2 };
    const isReturn = newline > at && stream[newline - 1] === 0x0d;
    const line = stream.subarray(at, isReturn ? newline - 1 : newline);
    at = newline + 1;
    try {
      if (line.length > max) throw new Error("too long");
      const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(line);
      const value = JSON.parse(text) as Record<string, Record<string, unknown>>;
      const { type_name: typeName, value: payload } = value["Storable"] ?? {};
      if (Array.isArray(value) || Object.keys(value).join() !== "Storable") throw new Error("form");
      if (typeof typeName !== "string" || typeof payload !== "string") throw new Error("fields");
      if (!typeName.isWellFormed() || !payload.isWellFormed()) throw new Error("surrogate");
      if (typeName === "" || Buffer.byteLength(typeName) > 1_024) throw new Error("type name");
      if (typeName.includes("\0")) throw new Error("NUL");
      messages.push(data(typeName, payload));
    } catch {
      return { messages, isRefused: true };
    }
  }
  return { messages, isRefused: false };
}

/** The same for native frames. */
function nativeOracle(stream: Buffer, max: number): Verdict {
  const messages: Data[] = [];
  let at = 0;
  const utf8 = (bytes: Buffer): string =>
    new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  while (stream.length - at >= 4) {
    const size = stream.readUInt32BE(at);
    if (size < 4 || size > max) return { messages, isRefused: true };
    const frame = stream.subarray(at + 4, at + 4 + size);
    if (frame.length < size) break;
    at += 4 + size;
    const [kind, length] = [frame[0], frame.readUInt16BE(2)];
    const payload = frame.subarray(4 + length);
    try {
      if (4 + length > size) throw new Error("name");
      if (kind === 1) {
        const typeName = utf8(frame.subarray(4, 4 + length));
        if (length < 1 || length > 1_024 || typeName.includes("\0")) throw new Error("type name");
        messages.push({ typeName, payload });
      } else if (kind === 2 || kind === 3) JSON.parse(utf8(payload));
      else if (kind === 5 && !/^\s*\{[^]*\}\s*$/.test(utf8(payload))) throw new Error("telemetry");
    } catch {
      return { messages, isRefused: true };
    }
  }
  return { messages, isRefused: false };
}
