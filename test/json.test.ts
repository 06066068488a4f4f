import { describe, expect, test } from "bun:test";

import { isObject, parseJson, showJson } from "../src/json.ts";
import { MAX_JSON_DEPTH } from "../src/limits.ts";
import { looseJson, randomText } from "./support/messages.ts";
import { property, type Random } from "./support/random.ts";
import { refusal } from "./support/refusal.ts";

describe("parseJson() (P-9)", () => {
  const nested = (open: string, close: string, depth: number): string =>
    open.repeat(depth) + close.repeat(depth);

  test.each([-1, 0, 1])("holds the limit of nesting, by %i levels", (more) => {
    const depth = MAX_JSON_DEPTH + more;
    for (const text of [nested("[", "]", depth), `{"a":${nested("[", "]", depth - 1)}}`]) {
      if (more <= 0) expect(JSON.stringify(parseJson(text))).toBe(text);
      else {
        expect(refusal(() => parseJson(text))).toBe(
          "bad_request: Cannot parse request: nested deeper than 64 levels",
        );
      }
    }
  });

  test("counts levels, not brackets", () => {
    const wide = `[${"[],{},".repeat(100)}0]`;
    const quoted = JSON.stringify(`${"[".repeat(100)}"\\${"{".repeat(100)}`);
    expect(parseJson(wide)).toHaveLength(201);
    expect(parseJson(quoted)).toBe(`${"[".repeat(100)}"\\${"{".repeat(100)}`);
  });

  test.each([
    ["a million brackets", "[".repeat(1_000_000)],
    ["as many behind as many closing ones", `${"]".repeat(1_000)}${"[".repeat(1_000_000)}`],
    ["as many behind an unfinished escape", `"\\"${"[".repeat(1_000_000)}`],
    ["as many keys", '{"a":'.repeat(200_000)],
  ])("refuses %s", (_, text) => {
    expect(refusal(() => parseJson(text))).toStartWith("bad_request: Cannot parse request: ");
  });

  test("begins its message as it is told", () => {
    expect(refusal(() => parseJson("nul", "Cannot read message"))).toBe(
      'bad_request: Cannot read message: it is not valid JSON (Unexpected identifier "nul")',
    );
  });

  property("reads what JSON.parse reads, in any legal form", 1_000, (random) => {
    const value = randomJson(random, 4);
    expect(parseJson(JSON.stringify(value))).toEqual(value);
    expect(parseJson(looseJson(random, value))).toEqual(value);
  });

  const twice: [what: string, text: string, key: string][] = [
    ["the first key", '{"a":1,"a":2}', "a"],
    ["a key with another between", '{"a":1,"b":2,"a":3}', "a"],
    ["a key in another spelling", '{"a":1,"\\u0061":2}', "a"],
    ["a key after an object", '{"a":{"b":1},"a":2}', "a"],
    ["a key after a list", '{"a":[{"a":1},2,"a"],"a":2}', "a"],
    ["a key within", '{"a":{"b":1,"b":2}}', "b"],
    ["a key within a list", '[1,{"a":1,"a":2}]', "a"],
    ["the empty key", '{"":1,"":2}', ""],
    ["__proto__", '{"__proto__":1,"__proto__":2}', "__proto__"],
    ["a key with white space around", '{ "a" : 1 , "a" : 2 }', "a"],
    ["a key behind a backslash", '{"a":"\\\\","a":2}', "a"],
    ["a key behind an escaped quote", '{"a":"\\\\\\"","a":2}', "a"],
    ["a key with quotes", '{"\\"":1,"\\"":2}', '"'],
  ];
  test.each(twice)("refuses %s twice (R28)", (_, text, key) => {
    expect(refusal(() => parseJson(text))).toBe(
      `bad_request: Cannot parse request: the key ${JSON.stringify(key)} is there twice`,
    );
  });

  const once: [what: string, text: string][] = [
    ["in objects that are not the same", '{"a":{"a":1},"b":{"a":2},"c":[{"a":3},{"a":4}]}'],
    ["as key and as value", '{"a":"a","b":["a","a"]}'],
    ["in a list of words", '["a","a",{"a":["a"]},"a"]'],
    ["in another case", '{"a":1,"A":2}'],
    ["with a NUL behind it", '{"a":1,"a\\u0000":2}'],
    ["in the text of a value", '{"a":"\\",\\"a\\":1","b":"{\\"b\\":1}"}'],
    ["behind a backslash", '{"a":"\\\\","b":"\\\\\\"","c":1}'],
  ];
  test.each(once)("takes the same key %s", (_, text) => {
    expect(parseJson(text)).toEqual(JSON.parse(text));
  });

  test.each([
    ["spaces", `"${" ".repeat(500_000)}"`],
    ["backslashes", `"${"\\\\".repeat(250_000)}"`],
    ["escaped quotes", `"${'\\"'.repeat(250_000)}"`],
    ["keys", `{${Array.from({ length: 50_000 }, (_, i) => `"${i}":0`).join()}}`],
    ["an endless string", `"${'\\"'.repeat(250_000)}`],
  ])("takes no longer for half a megabyte of %s", (_, text) => {
    const start = performance.now();
    try {
      parseJson(text);
    } catch {
      // only the time counts
    }
    // A hundred times what it takes: one that looks at all keys for each key needs far longer.
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});

describe("showJson()", () => {
  property("is JSON of the same value, and drives no terminal (S10)", 1_000, (random) => {
    const value = [randomJson(random, 3), random.text(8, ["\u009b", "\u202e", "\u2028", "\x7f", "\\", "a"])];
    for (const text of [showJson(value), showJson(value, 2)]) {
      expect(JSON.parse(text)).toEqual(value);
      expect(text.replaceAll("\n", "")).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u);
    }
  }); // prettier-ignore
});

test("isObject() tells objects from null and lists", () => {
  expect([{}, { a: 1 }, JSON.parse('{"__proto__":1}')].every(isObject)).toBe(true);
  expect([null, undefined, [], "", 0, true].some(isObject)).toBe(false);
});

type Json = string | number | null | boolean | Json[] | { [key: string]: Json };

function randomJson(random: Random, depth: number): Json {
  const kind = random.int(0, depth > 0 ? 5 : 3);
  if (kind === 0) return randomText(random, 20);
  if (kind === 1) return random.pick([0, -1, 0.5, 1e21, 12345678901]);
  if (kind === 2) return random.pick([true, false, null]);
  if (kind === 3) return "";
  const items = Array.from({ length: random.int(0, 4) }, () => randomJson(random, depth - 1));
  if (kind === 4) return items;
  return Object.fromEntries(items.map((item, i) => [`${randomText(random, 6)}${i}`, item]));
}
