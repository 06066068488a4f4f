import { describe, expect, test } from "bun:test";

import { LineScanner, lineTextEnd, NEWLINE } from "../src/lines.ts";
import { cutBy, property, type Random } from "./support/random.ts";
import { refusal } from "./support/refusal.ts";

/** Collects whole lines as text, and what they announce as raw: a line `raw <length>`. */
class Collector {
  readonly events: string[] = [];
  readonly regions: Buffer[] = [];
  /** The texts of the lines, as views of what was handed out. */
  readonly views: Buffer[] = [];
  readonly scanner: LineScanner;
  #raw: Buffer[] = [];
  #missing = 0;

  constructor(max: number) {
    this.scanner = new LineScanner(max, this.#visit.bind(this));
  }

  push(chunks: readonly Buffer[]): this {
    for (const chunk of chunks) this.scanner.push(chunk);
    return this;
  }

  #visit(chunk: Buffer, start: number, end: number): number {
    expect(chunk[end - 1]).toBe(NEWLINE);
    this.regions.push(chunk.subarray(start, end));
    for (let at = start; at < end;) {
      const next = chunk.indexOf(NEWLINE, at) + 1;
      const view = chunk.subarray(at, lineTextEnd(chunk, at, next));
      const text = view.toString("latin1");
      this.views.push(view);
      this.events.push(text);
      at = next;
      const announced = /^raw ([0-9]+)$/.exec(text)?.[1];
      if (announced !== undefined) {
        this.#missing = Number(announced);
        this.scanner.expectRaw(this.#missing, (bytes) => this.#take(bytes));
        return at;
      }
    }
    return end;
  }

  #take(bytes: Buffer): void {
    this.#raw.push(Buffer.from(bytes));
    this.#missing -= bytes.length;
    expect(this.#missing).toBeGreaterThanOrEqual(0);
    if (this.#missing > 0) return;
    this.events.push(`<${Buffer.concat(this.#raw).toString("latin1")}>`);
    this.#raw = [];
  }
}

const LETTERS = ["a", "b", " ", '"', "\\", "\0", "é", "\u0080", "ÿ"];

/** A stream of lines and raw stretches (which are full of newlines), and what is to be found in it. */
function randomStream(random: Random): { stream: Buffer; events: string[] } {
  const parts: string[] = [];
  const events: string[] = [];
  for (let count = random.int(0, 25); count > 0; count--) {
    if (random.chance(0.15)) {
      const raw = random.text(random.size(1, 200), ["\n", "\r", "raw 9\n", ...LETTERS]);
      parts.push(`raw ${raw.length}\n${raw}`);
      events.push(`raw ${raw.length}`, `<${raw}>`);
      continue;
    }
    const text = random.text(random.size(0, 80), LETTERS);
    parts.push(text, random.chance(0.2) ? "\r\n" : "\n");
    events.push(text);
  }
  return { stream: Buffer.from(parts.join(""), "latin1"), events };
}

describe("LineScanner", () => {
  property(
    "finds the same lines and raw bytes however the stream is cut (P-2, P-4, P-16)",
    500,
    (random) => {
      const { stream, events } = randomStream(random);
      for (const chunks of [
        random.cut(stream),
        random.cut(stream),
        cutBy(stream, () => 1),
        cutBy(stream, () => 2),
        [stream],
      ]) {
        const found = new Collector(1_000).push(chunks);
        expect(found.events).toEqual(events);
        expect(found.scanner.pendingBytes).toBe(0);
      }
    },
  );

  property("never writes again to what it handed out", 200, (random) => {
    const { stream, events } = randomStream(random);
    const found = new Collector(1_000).push(random.cut(stream));
    const lines = found.views.map((view) => view.toString("latin1"));
    expect(lines).toEqual(events.filter((event) => !event.startsWith("<")));
  });

  test("hands on all whole lines of a chunk at once, as a view", () => {
    const chunk = Buffer.from("a\nb\r\n\nrest");
    const found = new Collector(100).push([chunk]);
    expect(found.regions.map(String)).toEqual(["a\nb\r\n\n"]);
    expect(found.regions[0]?.buffer).toBe(chunk.buffer);
    expect(found.scanner.pendingBytes).toBe(4);
  });

  test("completes a line without waiting for the next one", () => {
    const found = new Collector(100).push([Buffer.from("a"), Buffer.from("b"), Buffer.from("\n")]);
    expect(found.events).toEqual(["ab"]);
    expect(found.scanner.pendingBytes).toBe(0);
  });

  test("works on a chunk that lies within a larger buffer", () => {
    const larger = Buffer.from("\n\nab\ncd\nef");
    expect(new Collector(100).push([larger.subarray(3, 8)]).events).toEqual(["b", "cd"]);
  });

  test("goes on with lines where the raw bytes end", () => {
    for (const cut of [1, 2, 3, 100]) {
      const stream = Buffer.from("raw 3\n\n\n\nnext\nraw 0\nlast\n");
      const found = new Collector(100).push(cutBy(stream, () => cut));
      expect(found.events).toEqual(["raw 3", "<\n\n\n>", "next", "raw 0", "last"]);
    }
  });

  test("hands on raw bytes as they come", () => {
    const seen: number[] = [];
    const it = new LineScanner(10, (_chunk, start) => {
      it.expectRaw(10, (bytes) => seen.push(bytes.length));
      return start + 2;
    });
    for (const part of ["a\n123", "4", "567890"]) it.push(Buffer.from(part));
    expect(seen).toEqual([3, 1, 6]);
  });

  const endings: [ending: string, bytes: string][] = [
    ["a newline", "\n"],
    ["return and newline", "\r\n"],
  ];
  test.each(endings)("takes a line of exactly the longest text before %s", (_, ending) => {
    for (const length of [99, 100]) {
      const line = Buffer.from("x".repeat(length) + ending);
      for (const chunks of [[line], cutBy(line, () => 1), cutBy(line, () => 60)]) {
        expect(new Collector(100).push(chunks).events).toEqual(["x".repeat(length)]);
      }
    }
  });

  test("refuses an unfinished line when it cannot become a legal one any more", () => {
    const refused = "limit_exceeded: Cannot read line: it is longer than 100 bytes";
    const tooMuch = Buffer.alloc(103, "x");
    expect(refusal(() => new Collector(100).push([tooMuch]))).toBe(refused);
    expect(refusal(() => new Collector(100).push(cutBy(tooMuch, () => 1)))).toBe(refused);
    expect(new Collector(100).push([tooMuch.subarray(0, 101)]).scanner.pendingBytes).toBe(101);
  });

  test("hands on the lines before an endless one", () => {
    const found = new Collector(100);
    const stream = Buffer.from(`a\nb\n${"x".repeat(200)}`);
    expect(refusal(() => found.push([stream]))).toStartWith("limit_exceeded: ");
    expect(found.events).toEqual(["a", "b"]);
  });

  test("the limit is one of lines, not of raw bytes", () => {
    const raw = "y".repeat(5_000);
    const found = new Collector(100).push([Buffer.from(`raw 5000\n${raw}z\n`)]);
    expect(found.events).toEqual(["raw 5000", `<${raw}>`, "z"]);
  });
});

test("lineTextEnd() leaves out the newline, and one return before it", () => {
  const table: [line: string, text: string][] = [
    ["\n", ""],
    ["\r\n", ""],
    ["a\n", "a"],
    ["a\r\n", "a"],
    ["a\r\r\n", "a\r"],
    ["a\rb\n", "a\rb"],
  ];
  for (const [line, text] of table) {
    const chunk = Buffer.from(`xx${line}yy`);
    const end = lineTextEnd(chunk, 2, 2 + line.length);
    expect(chunk.toString("latin1", 2, end)).toBe(text);
  }
});
