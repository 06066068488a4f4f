import { describe, expect, test } from "bun:test";

import { nearest } from "../src/nearest.ts";
import { property } from "./support/random.ts";

describe("nearest()", () => {
  test.each([
    ["runing", ["running", "stopped"], ["running"]],
    ["strat", ["start", "stop", "status"], ["start"]],
    ["sta", ["start", "stop", "status"], ["start", "status"]],
    ["PS", ["ps", "up"], ["ps"]],
    ["upp", ["up", "ps"], ["up"]],
    ["xy", ["xz"], []],
    ["restarted", ["start"], []],
    ["", ["a"], []],
  ])("of %j in %j is %j", (word, candidates, expected) => {
    expect(nearest(word, candidates)).toEqual(expected);
  });

  property("finds what looking at every pair of letters finds", 3_000, (random) => {
    const word = (): string => random.text(random.int(0, 8), ["a", "b", "c"]);
    const typed = word();
    const candidates = Array.from({ length: 5 }, word);
    expect(nearest(typed, candidates)).toEqual(slowNearest(typed, candidates));
  });

  test("does not compare what is far too long letter by letter", () => {
    const names = Array.from({ length: 1_000 }, (_, i) => `instance-${i}`);
    expect(nearest("x".repeat(1_000_000), names)).toEqual([]);
  });
});

/** The same by its definition. */
function slowNearest(word: string, candidates: readonly string[]): string[] {
  const same = candidates.filter((candidate) => candidate === word);
  if (same.length > 0 || word.length <= 2) return same;
  const limit = word.length <= 4 ? 1 : 2;
  const distances = candidates.map((candidate) =>
    candidate.startsWith(word) ? 1 : slowDistance(word, candidate),
  );
  const best = Math.min(limit, ...distances);
  return candidates.filter((_, index) => distances[index] === best);
}

function slowDistance(from: string, to: string): number {
  const table: number[][] = [];
  const at = (row: number, column: number): number => table[row]?.[column] ?? 0;
  for (let row = 0; row <= from.length; row++) {
    table.push([]);
    for (let column = 0; column <= to.length; column++) {
      const isSame = from[row - 1] === to[column - 1];
      const ways = [row === 0 ? column : row];
      if (row > 0 && column > 0) {
        ways[0] = at(row - 1, column - 1) + (isSame ? 0 : 1);
        ways.push(at(row - 1, column) + 1, at(row, column - 1) + 1);
        const isSwapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
        if (row > 1 && column > 1 && isSwapped) ways.push(at(row - 2, column - 2) + 1);
      }
      table[row]?.push(Math.min(...ways));
    }
  }
  return at(from.length, to.length);
}
