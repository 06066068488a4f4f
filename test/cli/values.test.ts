import { describe, expect, test } from "bun:test";

import { parseCount, parseTime, patternFault } from "../../src/cli/values.ts";

describe("parseTime()", () => {
  const now = new Date(2026, 10, 23, 16, 30, 15, 500).getTime();
  const local = (...parts: [number, number, number, number, number, number?]): number =>
    new Date(...parts).getTime();

  test.each([
    ["5m", now - 300_000],
    ["250ms", now - 250],
    ["2d", now - 2 * 86_400_000],
    ["99999d", 0],
    ["13:06", local(2026, 10, 23, 13, 6)],
    ["9:05:59", local(2026, 10, 23, 9, 5, 59)],
    ["2024-02-29", local(2024, 1, 29, 0, 0)],
    ["2026-11-22", local(2026, 10, 22, 0, 0)],
    ["2026-11-22 13:06", local(2026, 10, 22, 13, 6)],
    ["2026-11-22T13:06:28", local(2026, 10, 22, 13, 6, 28)],
    ["2026-11-22T13:06:28Z", Date.UTC(2026, 10, 22, 13, 6, 28)],
    ["2026-11-22T13:06:28.250+02:00", Date.UTC(2026, 10, 22, 11, 6, 28, 250)],
  ])("%s", (text, time) => {
    expect(parseTime(text, now)).toBe(time);
  });

  test.each([
    "",
    "5",
    "m",
    "24:00",
    "13:60",
    "yesterday",
    "2026-13-01",
    "2026-02-30",
    "2026-04-31T10:00Z",
    "1969-01-01",
    "2026",
    "-5m",
  ])("%p is none", (text) => {
    expect(parseTime(text, now)).toBeUndefined();
  });
});

test("parseCount() takes what a query may ask for", () => {
  expect(["0", "10", "1000000"].map(parseCount)).toEqual([0, 10, 1_000_000]);
  expect(["", "-1", "1.5", "1000001", "x"].map(parseCount)).toEqual(Array(5).fill(undefined));
});

test("patternFault() says what is wrong with a regular expression", () => {
  expect(patternFault("a.*b")).toBeUndefined();
  expect(patternFault("(")).toBe("missing )");
});
