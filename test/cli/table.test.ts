import { describe, expect, test } from "bun:test";

import { tamed } from "../../src/cli/logs.ts";
import { shortIds } from "../../src/cli/ps.ts";
import { fit, fitMiddle, formatTable } from "../../src/cli/table.ts";

describe("formatTable()", () => {
  const header = ["NAME", "STATE"];

  test("makes columns as wide as their widest cell, in columns of a screen", () => {
    expect(
      formatTable(
        header,
        [
          ["日本", "x"],
          ["p", "longer"],
        ],
        { colour: false },
      ),
    ).toBe("NAME  STATE\n日本  x\np     longer\n");
  });

  test("takes from the widest column what a screen has not", () => {
    const rows = [["name", "x".repeat(100)]];
    expect(formatTable(header, rows, { colour: false, columns: 20 })).toBe(
      `NAME  STATE\nname  ${"x".repeat(13)}…\n`,
    );
    for (let columns = 1; columns < 40; columns++) {
      const table = formatTable(header, [["日本語の名前です", "日本語の状態です"]], {
        colour: true,
        columns,
      });
      for (const line of table.trimEnd().split("\n")) {
        expect(Bun.stringWidth(line)).toBeLessThanOrEqual(columns);
      }
    }
  });

  test("leaves out what is spare before it cuts anything", () => {
    const header = ["NAME", "A", "STATE", "B"];
    const rows = [["ping", "spare", "waiting after a crash", "spare too"]];
    const at = (columns: number): string[] =>
      formatTable(header, rows, { colour: false, columns, spare: [3, 1] })
        .split("\n")
        .slice(0, 2);
    expect(at(45)).toEqual([
      "NAME  A      STATE                  B",
      "ping  spare  waiting after a crash  spare too",
    ]);
    expect(at(44)).toEqual(["NAME  A      STATE", "ping  spare  waiting after a crash"]);
    expect(at(33)).toEqual(["NAME  STATE", "ping  waiting after a crash"]);
    expect(at(20)).toEqual(["NAME  STATE", "ping  waiting after…"]);
  });

  test("colours cells, not what stands between them", () => {
    const style = (_row: number, column: number): string => (column === 0 ? "32" : "");
    expect(formatTable(header, [["a", "b"]], { colour: true, style })).toBe(
      "\x1b[1mNAME  STATE\x1b[0m\n\x1b[32ma\x1b[0m     b\n",
    );
  });

  test("what stands in a cell drives no terminal (S10)", () => {
    expect(formatTable(["A"], [["\x1b[2J\n"]], { colour: false })).not.toMatch(/[^\P{Cc}\n]|\n\n/u);
  });
});

test("fit() cuts at the width of a screen", () => {
  expect([fit("abcdef", 6), fit("abcdef", 5), fit("日本語", 5)]).toEqual([
    "abcdef",
    "abcd…",
    "日本…",
  ]);
});

test("fitMiddle() keeps both ends, in columns of a screen", () => {
  expect([fitMiddle("abcdef", 6), fitMiddle("abcdef-1", 5)]).toEqual(["abcdef", "ab…-1"]);
  for (const text of ["日本語の名前です", "a日本語", "日本語a", "x".repeat(20)]) {
    for (let columns = 1; columns < 20; columns++) {
      expect(Bun.stringWidth(fitMiddle(text, columns))).toBeLessThanOrEqual(columns);
    }
  }
});

test("formatTable() keeps both ends of names, and cuts no id", () => {
  const rows = [["camera-of-the-left-1", "12345678", "a state that is long"]];
  const options = { colour: false, columns: 30, names: [0], whole: [1] };
  expect(formatTable(["NAME", "ID", "STATE"], rows, options).split("\n")[1]).toBe(
    "came…ft-1  12345678  a state …",
  );
});

test("shortIds() are as long as it takes to tell them apart", () => {
  expect(shortIds(["aa-11112222", "bb-33334444"])).toEqual(["11112222", "33334444"]);
  expect(shortIds(["aaaa-11112222", "bbbb-11112222"])).toEqual(["aaa-11112222", "bbb-11112222"]);
});

test("tamed() lets colours through and nothing else", () => {
  expect(tamed("a\tb\r", true)).toBe("a\tb");
  expect(tamed("\x1b[31mred", true)).toBe("\x1b[31mred\x1b[0m");
  expect(tamed("\x1b[31mred\x1b[0m", false)).toBe("red");
  expect(tamed("\x1b]0;title\x07\x1b[2Jx", true)).not.toMatch(/\p{Cc}/u);
});
