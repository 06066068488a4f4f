import { expect, test } from "bun:test";

import { compareNames } from "../../src/cli/session.ts";

test("compareNames() orders numbers by their value, and capitals beside small letters", () => {
  const names = ["b", "a10", "a9", "A", "a", "a-2", "a9b", "a09", "Z", "10", "9", ""];
  expect(names.toSorted(compareNames)).toEqual([
    "",
    "9",
    "10",
    "A",
    "a",
    "a09",
    "a9",
    "a9b",
    "a10",
    "a-2",
    "b",
    "Z",
  ]);
});
