import { describe, expect, test } from "bun:test";

import {
  countLines,
  formatHead,
  HEAD_BYTES,
  mergeByTime,
  type OutputQuery,
  parseHead,
  recordsBetween,
  select,
  wholeEnd,
} from "../../src/output/recording.ts";
import { expected, MemoryFiles, played, record, someRecords } from "../support/output.ts";
import { property } from "../support/random.ts";

describe("The header of a record", () => {
  test("is one line of text of a fixed length", () => {
    const head = { time: 1_700_000_000_123.9, stream: "stderr", length: 87, before: 4 } as const;
    const bytes = formatHead(head);
    expect(bytes.toString()).toBe("@1700000000123 e 0000000087 0000000004\n");
    expect(bytes.length).toBe(HEAD_BYTES);
    expect(parseHead(bytes)).toEqual({ ...head, time: 1_700_000_000_123 });
  });

  test.each([
    ["is cut", "@1700000000123 o 0000000087 000000000"],
    ["begins otherwise", "#1700000000123 o 0000000087 0000000004\n"],
    ["has an unknown stream", "@1700000000123 x 0000000087 0000000004\n"],
    ["has other than digits", "@1700000000123 o 00000000-7 0000000004\n"],
    ["is of a record without bytes", "@1700000000123 o 0000000000 0000000004\n"],
    ["does not end", "@1700000000123 o 0000000087 0000000004 "],
    ["is all zeros", "\0".repeat(HEAD_BYTES)],
  ])("is none if it %s", (_, text) => {
    expect(parseHead(Buffer.from(text))).toBeUndefined();
  });
});

/** Some records in some files, of which the oldest may be gone. */
function someFiles(random: Parameters<typeof someRecords>[0], count: number) {
  const files = new MemoryFiles();
  let records = someRecords(random, count);
  let inFile = 0;
  for (const one of records) {
    if (inFile > 0 && random.chance(0.15)) {
      files.rotate();
      inFile = 0;
      if (random.chance(0.3)) {
        const gone = files.firstFile;
        files.removeFirst();
        records = records.filter((other) => fileOf.get(other) !== gone);
      }
    }
    fileOf.set(one, files.end.file);
    files.append(one);
    inFile++;
  }
  return { files, records };
}
const fileOf = new WeakMap<object, number>();

describe("select()", () => {
  property("finds what a query asks for, whatever the lines look like", 150, async (random) => {
    const { files, records } = someFiles(random, random.size(1, 60));
    const times = records.map(({ time }) => time);
    for (let i = 0; i < 5; i++) {
      const query: OutputQuery = {
        last: random.chance(0.5) ? random.size(0, 200) : undefined,
        since: random.chance(0.3) ? random.pick(times) : undefined,
        until: random.chance(0.3) ? random.pick(times) : undefined,
        stream: random.chance(0.4) ? random.pick(["stdout", "stderr"]) : undefined,
      };
      const { since = -Infinity, until = Infinity, stream, last = Infinity } = query;
      const wanted = records.filter(
        (one) =>
          one.time >= since &&
          one.time <= until &&
          (stream === undefined || one.stream === stream || one.stream === "note"),
      );
      const lines = expected(wanted);
      expect(await played(select(files, query, files.end))).toEqual(
        lines.slice(Math.max(0, lines.length - last)),
      );
    }
  });

  test("reads the last lines without reading the rest", async () => {
    const files = new MemoryFiles();
    for (let i = 0; i < 20_000; i++) {
      if (i % 500 === 0) files.rotate();
      files.append(record(i, `${i} ${"x".repeat(90)}\n`));
    }
    const lines = await played(select(files, { last: 10 }, files.end));
    expect(lines.map((line) => line.split(" ")[2])).toEqual(
      Array.from({ length: 10 }, (_, i) => `${19_990 + i}`),
    );
    expect(files.bytesRead).toBeLessThan(80_000);
  });

  test("holds back what is behind the end", async () => {
    const files = new MemoryFiles();
    files.append(record(1, "one\n"));
    const { end } = files;
    files.append(record(2, "two\n"));
    expect(await played(select(files, {}, end))).toEqual(["1 stdout one"]);
  });

  test("goes on in the next file behind what is damaged, and never back beyond it", async () => {
    const files = new MemoryFiles();
    files.append(record(1, "one\n"));
    files.append(record(2, "two\n"));
    files.rotate();
    files.append(record(3, "three\n"));
    const bytes = files.files.get(1) as Buffer;
    bytes.fill(0, HEAD_BYTES + 4);
    expect(await played(select(files, {}, files.end))).toEqual(["1 stdout one", "3 stdout three"]);
    expect(await played(select(files, { last: 9 }, files.end))).toEqual(["3 stdout three"]);
  });
});

test("recordsBetween() says where lines were rotated out while they were read", async () => {
  const files = new MemoryFiles();
  for (let i = 1; i <= 4; i++) {
    files.append(record(i, `${i}\n`));
    if (i < 4) files.rotate();
  }
  const lines: string[] = [];
  for await (const entry of recordsBetween(files, { file: 1, offset: 0, before: 0 }, files.end)) {
    lines.push((await entry.lines()).toString());
    if (lines.length > 1) continue;
    files.removeFirst();
    files.removeFirst();
  }
  const note = expect.stringContaining("rotated out");
  expect(lines).toEqual(["1\n", note, "3\n", "4\n"]);
});

describe("wholeEnd()", () => {
  property("finds the last whole record, wherever the file is cut", 20, async (random) => {
    const files = new MemoryFiles();
    const ends = [files.end];
    for (const one of someRecords(random, random.size(1, 12))) {
      files.append(one);
      ends.push(files.end);
    }
    const bytes = files.files.get(1) as Buffer;
    for (let length = 0; length <= bytes.length; length++) {
      files.files.set(1, bytes.subarray(0, length));
      const whole = ends.findLast(({ offset }) => offset <= length);
      expect(await wholeEnd(files, 1)).toEqual(whole as (typeof ends)[number]);
    }
  });

  test("ends before zeros, which a file has where a power failure met it", async () => {
    const files = new MemoryFiles();
    files.append(record(1, "one\n"));
    const { end } = files;
    files.append(record(2, "two\n"));
    (files.files.get(1) as Buffer).fill(0, end.offset + HEAD_BYTES);
    expect(await wholeEnd(files, 1)).toEqual(end);
  });
});

describe("mergeByTime()", () => {
  async function* sequence<T>(items: readonly T[], onEnd: () => void = () => {}) {
    try {
      yield* items;
    } finally {
      onEnd();
    }
  }

  property(
    "puts several sequences into one order, and none out of its own",
    200,
    async (random) => {
      const sequences = Array.from({ length: random.size(0, 12) }, (_, index) => {
        let time = 0;
        return Array.from({ length: random.size(0, 20) }, (__, n) => {
          time += random.int(0, 3);
          return { time, index, n };
        });
      });
      const merged = [];
      for await (const item of mergeByTime(sequences.map((items) => sequence(items)))) {
        merged.push(item);
      }
      // Sorting is stable: of equal times the earlier sequence comes first.
      expect(merged).toEqual(sequences.flat().toSorted((a, b) => a.time - b.time));
    },
  );

  test("keeps the order of a sequence whose clock was set back", async () => {
    const [a, b] = [[5, 1, 6].map((time) => ({ time })), [2, 7].map((time) => ({ time }))];
    const times = [];
    for await (const { time } of mergeByTime([sequence(a), sequence(b)])) times.push(time);
    expect(times).toEqual([2, 5, 1, 6, 7]);
  });

  test("ends every sequence when nobody wants more", async () => {
    let ended = 0;
    const items = [{ time: 1 }, { time: 2 }];
    const sequences = [0, 1, 2].map(() => sequence(items, () => ended++));
    for await (const _ of mergeByTime(sequences)) break;
    expect(ended).toBe(3);
  });
});

test("countLines() counts ends of lines", () => {
  expect(["", "a", "a\n", "\n\nb\n"].map((text) => countLines(Buffer.from(text)))).toEqual([
    0, 0, 1, 3,
  ]);
});
