import { describe, expect, test } from "bun:test";

import { formatKeyPath, type KeyPath, type Place } from "../../src/manifest/fault.ts";
import { formatOf, type ParsedValue, parseText } from "../../src/manifest/places.ts";
import type { Format } from "../../src/manifest/scan.ts";
import { Page, randomTree } from "../support/pages.ts";
import { property } from "../support/random.ts";

function parse(text: string, format: Format): ParsedValue {
  const parsed = parseText(text, format);
  if (parsed.kind === "fault") throw new Error(`${parsed.message} in:\n${text}`);
  return parsed;
}

/** The offset of a place, computed otherwise than by the code under test. */
function offsetOf(text: string, place: Place | undefined): number | undefined {
  if (place === undefined) return undefined;
  const lines = text.split("\n");
  const before = lines.slice(0, place.line - 1).reduce((sum, line) => sum + line.length + 1, 0);
  const line = [...(lines[place.line - 1] as string)];
  return before + line.slice(0, place.column - 1).join("").length;
}

describe("parseText() finds every key and value", () => {
  for (const format of ["toml", "yaml", "json"] as const) {
    property(`in ${format}, however it is written`, 400, (random) => {
      const tree = randomTree(random);
      const page = new Page(random, format, tree);
      const { value, places, twice } = parse(page.text, format);
      expect(value, page.text).toEqual(tree);
      expect(twice).toEqual([]);
      for (const [path, at] of page.keys) {
        const key = JSON.parse(path) as KeyPath;
        expect(offsetOf(page.text, places.ofKey(key)), `key ${path} in\n${page.text}`).toBe(at);
      }
      for (const [path, at] of page.values) {
        const key = JSON.parse(path) as KeyPath;
        expect(offsetOf(page.text, places.ofValue(key)), `value ${path} in\n${page.text}`).toBe(at);
      }
    });
  }
});

/** Where the key and the value of a path stand: `3:1 3:8`. */
function where(text: string, format: Format, ...path: KeyPath): string {
  const { places } = parse(text, format);
  const spell = (place: Place | undefined): string =>
    place === undefined ? "unknown" : `${place.line}:${place.column}`;
  return `${spell(places.ofKey(path))} ${spell(places.ofValue(path))}`;
}

describe("parseText()", () => {
  test("counts characters, not bytes and not UTF-16 units", () => {
    expect(where('"😀é" = 1', "toml", "😀é")).toBe("1:1 1:8");
    expect(where('{"😀é": 1}', "json", "😀é")).toBe("1:2 1:8");
  });

  test("takes a byte order mark for nothing", () => {
    expect(where("\uFEFFa = 1\r\nb = 2", "toml", "b")).toBe("2:1 2:5");
    expect(where("\uFEFFa: 1\r\nb: 2", "yaml", "a")).toBe("1:1 1:4");
    expect(where('\uFEFF{"a": 1}', "json", "a")).toBe("1:2 1:7");
  });

  test("numbers the tables of a list", () => {
    const text = "[[links]]\nto = 1\n[[links]]\n[links.more]\nx.y = 2\n";
    expect(where(text, "toml", "links", 0, "to")).toBe("2:1 2:6");
    expect(where(text, "toml", "links", 1)).toBe("3:1 3:1");
    expect(where(text, "toml", "links", 1, "more", "x", "y")).toBe("5:3 5:7");
  });

  test("takes what looks like a key within a text for a part of the text", () => {
    const block = "a: |\n  x: 1\n\n  y: 2\nb: x\n  z y\n\n  w\nc: 3\n";
    expect(where(block, "yaml", "b")).toBe("5:1 5:4");
    expect(where(block, "yaml", "c")).toBe("9:1 9:4");
    expect(where(block, "yaml", "a", "y")).toBe("unknown unknown");
    expect(where("a: [x#, y]\nb: 1\n", "yaml", "b")).toBe("2:1 2:4");
    const quotes = `a = """x"""""\nb = '''\n[c]\nd = 1'''\nd = 2\n`;
    expect(where(quotes, "toml", "d")).toBe("5:1 5:5");
    expect(where(quotes, "toml", "c", "d")).toBe("unknown unknown");
  });

  test("knows no place of what is not there, and of nothing around it a wrong one", () => {
    expect(where("a = 1", "toml", "b")).toBe("unknown unknown");
    expect(where("a: &x {b: 1}\nc: *x\n", "yaml", "c", "b")).toBe("unknown unknown");
  });

  test.each([
    ["a complex key", "a: 1\n? z\n: 2\nb: 3\n"],
    ["a table without brackets in a list", "a: 1\nz: [c: 1]\nb: 2\n"],
    ["an anchor of a key", "a: 1\n&x b: 2\n"],
  ])("is silent about what stands behind %s", (_, text) => {
    expect(where(text, "yaml", "a")).toStartWith("1:1 ");
    expect(where(text, "yaml", "b")).toBe("unknown unknown");
  });

  test("tells of no key twice, once it has lost its way", () => {
    expect(parse("a: 1\na: 2\n? z\n: 3\n", "yaml").twice).toEqual([]);
  });

  test.each([
    ["yaml", "a:\n  b: 1\n  c: 2\n  b: 3\n", "a.b 4:3"],
    ["yaml", "a: {b: 1, b: 2}\n", "a.b 1:11"],
    ["json", '{"a": [{"b": 1, "\\u0062": 2}]}', "a[0].b 1:17"],
  ] as const)("tells of a key that is there twice, in %s", (format, text, expected) => {
    const { twice } = parse(text, format);
    const found = twice.map(({ path, place }) => {
      return `${formatKeyPath(path)} ${place.line}:${place.column}`;
    });
    expect(found).toEqual([expected]);
  });
});

describe("parseText() finds the statement that it cannot parse", () => {
  test.each([
    ["toml", "a = 1\nb = = 2\nc = 3\n", "2:1"],
    ["toml", 'a = 1\n\nb = "open\nc = 3\n', "3:1"],
    ["toml", "a = [\n  1,\n  2\nb = 3\n", "1:1"],
    ["toml", "a = [\n  1,\n  2,\n]\nb = 3 c = 4\n[d]\n", "5:1"],
    ["toml", "[a]\nx = 1\n[b]\n[a]\ny = 2\n", "4:1"],
    ["toml", "[a]\nx = 1\n  [b\ny = 2\n", "3:3"],
    ["toml", "=", "1:1"],
    ["yaml", "a: 1\nb: [1,\n  2\nc: 3\n", "2:1"],
    ["yaml", "a: 1\nb: 2\n  c: 3\nd: 4\n", "3:1"],
    ["yaml", "a:\n  b: 1\n c: 2\n", "3:1"],
    ["yaml", "a: 1\nb: *nobody\nc: 3\n", "2:1"],
    ["json", '{\n  "a": 1,\n  "b": ,\n}', "3:8"],
    ["json", '{\n  "a": 1,\n}', "3:1"],
    ["json", '{"a": [1 2]}', "1:10"],
    ["json", '{"a": nul}', "1:7"],
    ["json", "{'a': 1}", "1:2"],
    ["json", '{"a": "\\x"}', "1:7"],
    ["json", '{"a": 1} {', "1:10"],
    ["json", "", "1:1"],
  ] as const)("in %s: %j", (format, text, expected) => {
    const parsed = parseText(text, format);
    if (parsed.kind === "value") throw new Error("it can");
    expect(`${parsed.place?.line}:${parsed.place?.column}`).toBe(expected);
    expect(parsed.message).toMatch(/^it is not valid (TOML|YAML|JSON) \(.+\)$/);
  });

  test.each(["toml", "yaml", "json"] as const)("and survives any depth, in %s", (format) => {
    for (const opening of ["[", '{"a":', "- ", "a.", '{"a"=']) {
      for (const start of ["", "a = ", "a: "]) {
        const parsed = parseText(start + opening.repeat(100_000), format);
        if (parsed.kind === "fault")
          expect(parsed.message).toMatch(/not valid|nested (too deep|deeper)/);
      }
    }
  });

  property("and throws nothing, whatever it is given", 300, (random) => {
    const format = random.pick(["toml", "yaml", "json"] as const);
    const { text } = new Page(random, format, randomTree(random));
    const at = random.int(0, text.length);
    const broken = text.slice(0, at) + random.text(2, [..."[]{}\"'#=:,-\n &|", text.slice(at)]);
    const parsed = parseText(broken, random.pick(["toml", "yaml", "json"] as const));
    expect(["value", "fault"]).toContain(parsed.kind);
  });
});

test.each([
  ["a.toml", "toml"],
  ["/x.y/a.yml", "yaml"],
  ["a.b.yaml", "yaml"],
  ["a.json", "json"],
  ["a.ts", undefined],
  ["toml", undefined],
  [".constructor", undefined],
])("formatOf() knows %s as %s", (file, format) => {
  expect(formatOf(file)).toBe(format as Format);
});
