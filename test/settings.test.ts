import { describe, expect, test } from "bun:test";

import {
  argumentsFault,
  environmentFault,
  nameFault,
  parseDuration,
  pathFault,
  proposeName,
} from "../src/settings.ts";

describe("nameFault()", () => {
  test.each(["ping", "a", "9lives", "Ping_2.service-x", "x".repeat(64)])("accepts %s", (name) => {
    expect(nameFault(name)).toBeUndefined();
  });
  test.each([
    ["", "it is empty"],
    ["x".repeat(65), "it is longer than 64 characters"],
    ["-x", /begins with a letter or digit/],
    ["a b", /letters, digits/],
    ["a/b", /letters, digits/],
    ["a\n", /letters, digits/],
    ["ä", /letters, digits/],
    ["0195fc7b-33e6-70e3-bee1-ac515185fac7", "it looks like an id"],
    ["0195FC7B33E670E3BEE1AC515185FAC7", "it looks like an id"],
  ])("refuses %o", (name, fault) => {
    expect(nameFault(name)).toMatch(fault);
  });
});

describe("proposeName()", () => {
  test.each([
    ["/opt/ping", [], "ping"],
    ["ping", ["ping"], "ping-2"],
    ["/opt/ping", ["ping", "ping-2", "ping-3"], "ping-4"],
    ["/opt/my program (1)", [], "my-program-1-"],
    ["/opt/.hidden", [], "hidden"],
    ["/opt/§§§", [], "instance"],
    ["/opt/", [], "instance"],
    ["/opt/0195fc7b-33e6-70e3-bee1-ac515185fac7", [], "instance"],
  ] as [string, string[], string][])("of %s beside %j: %s", (path, taken, name) => {
    expect(proposeName(path, new Set(taken))).toBe(name);
  });

  test("is a name, however long the file's is", () => {
    const taken = new Set<string>();
    for (let i = 0; i < 1_100; i++) {
      const name = proposeName(`/opt/${"x".repeat(300)}`, taken);
      expect(nameFault(name)).toBeUndefined();
      taken.add(name);
    }
    expect(taken.size).toBe(1_100);
  });
});

describe("argumentsFault()", () => {
  test("accepts what a program can be given", () => {
    expect(argumentsFault([])).toBeUndefined();
    expect(argumentsFault(["", "--x=ä", "a\nb"])).toBeUndefined();
    expect(argumentsFault(["x".repeat(64 * 1024 - 1)])).toBeUndefined();
  });
  test.each([
    [["x".repeat(64 * 1024)], "they are 65537 bytes long, more than 65536"],
    [["a", "b\0"], "number 2 contains a NUL character"],
    [["\ud800"], "number 1 contains an unpaired surrogate"],
  ])("refuses what it cannot", (args, fault) => {
    expect(argumentsFault(args)).toBe(fault);
  });
});

describe("environmentFault()", () => {
  test("accepts names of variables with any text", () => {
    expect(environmentFault({ A: "", _b: "x=y", C3: "ä\n" })).toBeUndefined();
  });
  test.each([
    [{ "A=B": "" }, '"A=B" is not the name of a variable'],
    [{ "": "" }, '"" is not the name of a variable'],
    [{ "1A": "" }, '"1A" is not the name of a variable'],
    [{ A: "secret\0" }, 'the value of "A" contains a NUL character'],
    [{ VEECLE_RUNTIME_ID: "x" }, '"VEECLE_RUNTIME_ID" is set by the orchestrator itself'],
    [{ VEECLE_ORCHESTRATOR_SOCKET: "x" }, /is set by the orchestrator itself/],
    [{ A: "x".repeat(64 * 1024) }, "it is 65539 bytes long, more than 65536"],
  ] as [Record<string, string>, string | RegExp][])("refuses %o", (env, fault) => {
    expect(environmentFault(env)).toMatch(fault);
  });
  test("never repeats a value", () => {
    expect(environmentFault({ A: "secret\0" })).not.toContain("secret");
  });
});

test.each([
  ["250ms", 250],
  ["5s", 5_000],
  ["1.5m", 90_000],
  ["2h", 7_200_000],
  ["1d", 86_400_000],
  ["0s", 0],
  ["99999999999999999999d", 99999999999999999999 * 86_400_000],
  ["5", undefined],
  ["5 s", undefined],
  ["-5s", undefined],
  ["1e3s", undefined],
  ["", undefined],
  ["s", undefined],
])("parseDuration() reads %o as %p ms", (text, ms) => {
  expect(parseDuration(text)).toBe(ms);
});

test.each([
  ["/x", undefined],
  ["", "is empty"],
  ["/\0", "contains a NUL character"],
  ["/\udfff", "contains an unpaired surrogate"],
  ["/".repeat(4_095), undefined],
  ["/".repeat(4_096), "is longer than 4095 bytes"],
])("pathFault() of a path", (path, fault) => {
  expect(pathFault(path)).toBe(fault as string);
});
