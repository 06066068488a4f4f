import { describe, expect, test } from "bun:test";

import { MAX_FOLLOWER_BYTES, MAX_OUTPUT_LINE_BYTES } from "../src/limits.ts";
import { Follower, Output } from "../src/output.ts";
import { property } from "./support/random.ts";

/** Everything that waits for a follower. */
function taken(follower: Follower): string {
  let text = "";
  for (let next = follower.take(); next !== undefined; next = follower.take()) text += next;
  return text;
}

function following(output: Output): Follower {
  const follower = new Follower(() => {});
  output.follow(follower);
  return follower;
}

describe("Output", () => {
  property("hands on the same lines however they are cut", 200, (random) => {
    const text = Array.from({ length: 20 }, (_, i) => `${i} ${"x".repeat(random.size(0, 90_000))}`);
    const bytes = Buffer.from(`${text.join("\n")}\n`);
    const output = new Output();
    const sink = output.open();
    let lines = "";
    const follower = new Follower(() => {
      lines += taken(follower);
    });
    output.follow(follower);
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + random.size(1, 70_000));
      sink.append("stdout", bytes.subarray(at, end));
      at = end;
    }
    sink.end();
    const whole = text.every((line) => line.length <= MAX_OUTPUT_LINE_BYTES);
    if (whole) expect(lines).toBe(bytes.toString());
    expect(lines.replaceAll("\n", "")).toBe(bytes.toString().replaceAll("\n", ""));
  });

  test("mixes no lines of standard output and standard error", () => {
    const output = new Output();
    const follower = following(output);
    const sink = output.open();
    sink.append("stdout", Buffer.from("o"));
    sink.append("stderr", Buffer.from("error\n"));
    sink.append("stdout", Buffer.from("ut\n"));
    expect(taken(follower)).toBe("error\nout\n");
    expect(sink.lastWords()).toBe("error");
  });

  test("ends its followers when the instance is removed", () => {
    const output = new Output();
    const follower = following(output);
    output.end();
    expect(follower.isEnded).toBe(true);
  });
});

test("Follower loses its oldest lines when it does not read, and is told how many", () => {
  const follower = new Follower(() => {});
  const region = Buffer.from(`${"x".repeat(999)}\n`.repeat(100));
  for (let pushed = 0; pushed <= MAX_FOLLOWER_BYTES; pushed += region.length) follower.push(region);
  const text = taken(follower);
  const [, lost] = /^\[veecle-orchestrator: (\d+) lines dropped/.exec(text) ?? [];
  expect(Number(lost)).toBe(100);
  expect(text.length).toBeLessThanOrEqual(MAX_FOLLOWER_BYTES + 100);
});
