import { expect, test } from "bun:test";

import { sortedByName } from "../../src/cli/session.ts";

test("sortedByName() orders numbers by their value, and capitals beside small letters", () => {
  const names = ["b", "a10", "a9", "A", "a", "a-2", "a9b", "a09", "Z", "10", "9", ""];
  expect(sortedByName(names.map((name) => ({ name }))).map(({ name }) => name)).toEqual([
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
