import { describe, expect, test } from "bun:test";

import { encodeFrame, FrameScanner, PREFIX_BYTES } from "../src/frame.ts";
import {
  GATHER_BLOCK_BYTES,
  GATHER_FRAME_BYTES,
  MAX_FRAME_BYTES,
  MAX_NATIVE_FRAME_BYTES,
  MAX_REQUEST_BYTES,
} from "../src/limits.ts";
import { cutBy, property, type Random } from "./support/random.ts";
import { refusal } from "./support/refusal.ts";

interface Found {
  /** The bodies, copied when they were found. */
  bodies: Buffer[];
  /** The same frames as the views that were handed out. */
  views: Buffer[];
}

function scanner(min: number, max: number): { scanner: FrameScanner; found: Found } {
  const found: Found = { bodies: [], views: [] };
  const it = new FrameScanner(min, max, (chunk, view, start, end) => {
    expect(view.byteLength).toBe(chunk.length);
    expect(view.byteOffset).toBe(chunk.byteOffset);
    expect(view.buffer).toBe(chunk.buffer);
    expect(view.getUint32(start)).toBe(end - start - PREFIX_BYTES);
    found.bodies.push(Buffer.from(chunk.subarray(start + PREFIX_BYTES, end)));
    found.views.push(chunk.subarray(start, end));
  });
  return { scanner: it, found };
}

function bodiesOf(chunks: readonly Buffer[], min = 0, max = MAX_NATIVE_FRAME_BYTES): Buffer[] {
  const { scanner: it, found } = scanner(min, max);
  for (const chunk of chunks) it.push(chunk);
  expect(it.pendingBytes).toBe(0);
  return found.bodies;
}

function randomBodies(random: Random): Buffer[] {
  return Array.from({ length: random.int(0, 20) }, () => random.bytes(random.size(0, 300)));
}

describe("encodeFrame()", () => {
  test("puts the size of the body before it, big-endian", () => {
    expect(encodeFrame("abc").toString("hex")).toBe("00000003616263");
    expect(encodeFrame(Buffer.from([0xff])).toString("hex")).toBe("00000001ff");
    expect(encodeFrame("").toString("hex")).toBe("00000000");
    expect(encodeFrame(Buffer.alloc(0x01_02_03)).subarray(0, 4).toString("hex")).toBe("00010203");
  });

  test("counts bytes of UTF-8, not letters", () => {
    expect(encodeFrame("é😀").toString("hex")).toBe("00000006c3a9f09f9880");
    expect(encodeFrame("\ud800").toString("hex")).toBe("00000003efbfbd");
  });
});

describe("FrameScanner", () => {
  test("goes on where a visitor stopped that took several frames", () => {
    const stream = Buffer.concat(["a", "b", "c", "d"].map(encodeFrame));
    const visited: string[] = [];
    const it = new FrameScanner(0, 10, (chunk, _view, start, end) => {
      visited.push(chunk.toString("latin1", start + PREFIX_BYTES, end));
      return chunk[end - 1] === 0x62 ? end + 5 : end;
    });
    it.push(stream);
    expect(visited).toEqual(["a", "b", "d"]);
    expect(it.pendingBytes).toBe(0);
  });

  property("finds the same frames however the stream is cut (P-3, P-4)", 500, (random) => {
    const bodies = randomBodies(random);
    const stream = Buffer.concat(bodies.map((body) => encodeFrame(body)));
    const cuts = [
      random.cut(stream),
      random.cut(stream),
      cutBy(stream, () => 1),
      cutBy(stream, () => PREFIX_BYTES),
      [stream],
    ];
    for (const chunks of cuts) expect(bodiesOf(chunks)).toEqual(bodies);
  });

  property("finds frames between empty chunks", 100, (random) => {
    const bodies = randomBodies(random);
    const stream = Buffer.concat(bodies.map((body) => encodeFrame(body)));
    const chunks = random.cut(stream).flatMap((chunk) => [Buffer.alloc(0), chunk]);
    expect(bodiesOf(chunks)).toEqual(bodies);
  });

  property("never writes again to what it handed out", 100, (random) => {
    const bodies = randomBodies(random);
    const { scanner: it, found } = scanner(0, 1_000);
    const stream = Buffer.concat(bodies.map((body) => encodeFrame(body)));
    for (const chunk of random.cut(stream)) it.push(chunk);
    expect(found.views.map((view) => view.subarray(PREFIX_BYTES))).toEqual(bodies);
  });

  test("copies nothing that arrives whole", () => {
    const chunk = Buffer.concat([encodeFrame("a"), encodeFrame("bc")]);
    const { scanner: it, found } = scanner(0, 10);
    it.push(chunk);
    expect(found.views.map((view) => view.buffer === chunk.buffer)).toEqual([true, true]);
  });

  test("works on a chunk that lies within a larger buffer", () => {
    const larger = Buffer.concat([Buffer.from("xx"), encodeFrame("a"), encodeFrame("b")]);
    expect(bodiesOf([larger.subarray(2)]).join()).toBe("a,b");
  });

  test("hands on a frame as soon as its last byte is there, and not before", () => {
    const { scanner: it, found } = scanner(0, 10);
    const frame = encodeFrame("abc");
    for (let i = 0; i < frame.length; i++) {
      expect(found.bodies).toHaveLength(0);
      expect(it.pendingBytes).toBe(i);
      it.push(frame.subarray(i, i + 1));
    }
    expect(found.bodies.join()).toBe("abc");
    expect(it.pendingBytes).toBe(0);
  });

  test("takes frames without a body", () => {
    const stream = Buffer.concat([encodeFrame(""), encodeFrame("a"), encodeFrame("")]);
    expect(bodiesOf([stream]).join()).toBe(",a,");
    expect(bodiesOf(cutBy(stream, () => 1)).join()).toBe(",a,");
    expect(bodiesOf(cutBy(stream, () => 3)).join()).toBe(",a,");
  });

  test.each([MAX_REQUEST_BYTES, MAX_FRAME_BYTES, MAX_NATIVE_FRAME_BYTES])(
    "holds a limit of %i bytes, from both sides",
    (max) => {
      for (const size of [max - 1, max]) {
        const frame = encodeFrame(Buffer.alloc(size, 7));
        for (const chunks of [[frame], cutBy(frame, () => 65_536)]) {
          expect(bodiesOf(chunks, 0, max).map((body) => body.length)).toEqual([size]);
        }
      }
      const prefix = Buffer.alloc(4);
      prefix.writeUInt32BE(max + 1);
      expect(refusal(() => bodiesOf([prefix], 0, max))).toBe(
        `limit_exceeded: Cannot read frame: its size is ${max + 1} bytes, more than ${max}`,
      );
    },
  );

  const sizes: [size: string, prefix: string, refused: string][] = [
    ["0", "00000000", "bad_request: Cannot read frame: its size is 0 bytes, less than 4"],
    [
      "one less than the smallest",
      "00000003",
      "bad_request: Cannot read frame: its size is 3 bytes, less than 4",
    ],
    [
      "one more than the largest",
      "00000009",
      "limit_exceeded: Cannot read frame: its size is 9 bytes, more than 8",
    ],
    [
      "2 GiB",
      "80000000",
      "limit_exceeded: Cannot read frame: its size is 2147483648 bytes, more than 8",
    ],
    [
      "4 GiB",
      "ffffffff",
      "limit_exceeded: Cannot read frame: its size is 4294967295 bytes, more than 8",
    ],
  ];
  test.each(sizes)("refuses a size of %s as soon as it is known", (_, hex, refused) => {
    const prefix = Buffer.from(hex, "hex");
    const whole = Buffer.concat([prefix, Buffer.alloc(100)]);
    for (const chunks of [[prefix], [whole], cutBy(prefix, () => 1), cutBy(whole, () => 3)]) {
      expect(refusal(() => bodiesOf(chunks, 4, 8))).toBe(refused);
    }
  });

  test("asks for no more than the prefix to refuse a size", () => {
    const { scanner: it } = scanner(4, 8);
    it.push(Buffer.from("ffffff", "hex"));
    expect(refusal(() => it.push(Buffer.from("ff", "hex")))).toStartWith("limit_exceeded: ");
  });

  describe("with a visitor of pieces", () => {
    interface Seen {
      readonly frames: Buffer[];
      readonly inPieces: { readonly pieces: readonly Buffer[]; readonly length: number }[];
    }

    function seen(chunks: readonly Buffer[]): Seen {
      const all: Seen = { frames: [], inPieces: [] };
      const it = new FrameScanner(
        0,
        MAX_NATIVE_FRAME_BYTES,
        (chunk, _view, start, end) => void all.frames.push(chunk.subarray(start, end)),
        (pieces, length) => {
          all.inPieces.push({ pieces, length });
          all.frames.push(Buffer.concat(pieces));
        },
      );
      for (const chunk of chunks) it.push(chunk);
      expect(it.pendingBytes).toBe(0);
      return all;
    }

    property("finds the same frames however the stream is cut (P-3, P-4)", 60, (random) => {
      const bodies = Array.from({ length: random.int(1, 5) }, () =>
        random.chance(0.5)
          ? random.bytes(random.size(0, 300))
          : Buffer.alloc(random.int(60_000, 200_000), random.text(13, ["a", "b", "c"])),
      );
      const frames = bodies.map((body) => encodeFrame(body));
      const stream = Buffer.concat(frames);
      const longest = random.pick([3, 1_000, 40_000, 300_000]);
      const found = seen(cutBy(stream, () => random.int(1, longest)));
      expect(found.frames.map((frame) => frame.length)).toEqual(frames.map(({ length }) => length));
      expect(Buffer.concat(found.frames).equals(stream)).toBe(true);
      for (const { pieces, length } of found.inPieces) {
        expect(length).toBeGreaterThan(GATHER_BLOCK_BYTES);
        expect(pieces.reduce((sum, piece) => sum + piece.length, 0)).toBe(length);
        for (const piece of pieces.slice(0, -1)) {
          expect(piece.length).toBeGreaterThanOrEqual(GATHER_FRAME_BYTES);
        }
      }
    });

    test("hands on large pieces as they came", () => {
      const frame = encodeFrame(Buffer.alloc(200_000));
      const chunks = cutBy(Buffer.concat([encodeFrame("a"), frame]), () => 70_000);
      const [large] = seen(chunks).inPieces;
      expect(large?.pieces.map(({ buffer }) => buffer)).toEqual(chunks.map(({ buffer }) => buffer));
    });

    test("puts together what is no larger than a block, and what a chunk brings too little of", () => {
      const body = (bytes: number): Buffer => encodeFrame(Buffer.alloc(bytes - PREFIX_BYTES));
      const small = seen(cutBy(body(GATHER_BLOCK_BYTES), () => 40_000));
      expect([small.frames.length, small.inPieces.length]).toEqual([1, 0]);
      const [large] = seen(cutBy(body(GATHER_BLOCK_BYTES + 1), () => 10)).inPieces;
      expect(large?.pieces.map(({ length }) => length)).toEqual([
        ...new Array(GATHER_BLOCK_BYTES / GATHER_FRAME_BYTES).fill(GATHER_FRAME_BYTES),
        1,
      ]);
    });
  });

  property("hands on every frame before the one that it refuses", 200, (random) => {
    const bodies = randomBodies(random);
    const bad = Buffer.alloc(4);
    bad.writeUInt32BE(random.int(301, 2 ** 32 - 1));
    const stream = Buffer.concat([
      ...bodies.map((body) => encodeFrame(body)),
      bad,
      random.bytes(9),
    ]);
    const { scanner: it, found } = scanner(0, 300);
    expect(
      refusal(() => {
        for (const chunk of random.cut(stream)) it.push(chunk);
      }),
    ).toStartWith("limit_exceeded: ");
    expect(found.bodies).toEqual(bodies);
  });
});
