import { describe, expect, test } from "bun:test";

import { expandVariables, parseEnvironmentFile } from "../../src/manifest/variables.ts";

describe("expandVariables()", () => {
  const environment = { HOME: "/root", EMPTY: "", ODD: "$HOME ${HOME}", UNSET: undefined };

  test.each([
    ["plain", "plain"],
    ["${HOME}/x${HOME}", "/root/x/root"],
    ["${EMPTY}", ""],
    ["${EMPTY:-default}", "default"],
    ["${NONE:-a b:-c}", "a b:-c"],
    ["${NONE:-}", ""],
    ["${NONE:-5 $$\n}", "5 $\n"],
    ["${UNSET:-x}", "x"],
    ["${toString:-x}", "x"],
    ["${HOME:-x}", "/root"],
    ["$${HOME} costs 5 $$", "${HOME} costs 5 $"],
    ["$$$$", "$$"],
    ["$$${HOME}", "$/root"],
    ["${ODD}", "$HOME ${HOME}"],
  ])("makes of %j %j", (text, expected) => {
    expect(expandVariables(text, environment)).toEqual({ text: expected, faults: [] });
  });

  test.each([
    ["$HOME", '"$HOME" is no variable'],
    ["5 $", '"$" is no variable'],
    ["${HOME", '"${HOME" is no variable'],
    ["${}", '"${}" is no variable'],
    ["${1A}", '"${1A}" is no variable'],
    ["${HOME-x}", '"${HOME-x}" is no variable'],
    ["${HOME:-${NONE}}", '"${HOME:-${NONE}" is no variable'],
    ["${NONE:-$HOME}", '"${NONE:-$HOME}" is no variable'],
    ["${NONE}", "the variable NONE is not set"],
    ["${UNSET}", "the variable UNSET is not set"],
    ["${toString}", "the variable toString is not set"],
  ])("refuses %j", (text, message) => {
    expect(expandVariables(text, environment).faults.map((fault) => fault.message)).toEqual([
      message,
    ]);
  });

  test("tells every fault", () => {
    expect(expandVariables("${A} $B ${HOMR}", environment).faults).toEqual([
      {
        message: "the variable A is not set",
        hint: "set it, or write ${A:-default}",
        isUnset: true,
      },
      {
        message: '"$B" is no variable',
        hint: "write ${NAME}, ${NAME:-default}, or $$ for a dollar sign",
        isUnset: false,
      },
      { message: "the variable HOMR is not set", hint: 'did you mean "HOME"?', isUnset: true },
    ]);
  });
});

describe("parseEnvironmentFile()", () => {
  test.each([
    ["A=1", "1"],
    ["\uFEFF  A = 1  \r\n", "1"],
    ["export A=1", "1"],
    ["A=", ""],
    ["A=a=b#c $D", "a=b#c $D"],
    ["A=a b # c", "a b"],
    ["A='a # \\n' # c", "a # \\n"],
    ['A="a # \\n\\t\\"\\\\\\x"', 'a # \n\t"\\x'],
    ['A=""', ""],
    ["A=1\n#A=2\n\nA=3\n", "3"],
  ])("reads %j", (text, value) => {
    const { variables, faults } = parseEnvironmentFile(text);
    expect(faults).toEqual([]);
    expect([...variables].map(([name, variable]) => [name, variable.value])).toEqual([
      ["A", value],
    ]);
  });

  test("names each line that it cannot read, and reads the others", () => {
    const text = "A\nB=1\n=2\nC='\nD=\"x\\\"\nE='a' b\nA B=1\n";
    const { variables, faults } = parseEnvironmentFile(text);
    expect([...variables]).toEqual([["B", { value: "1", line: 2 }]]);
    expect(faults.map(({ line, message }) => `${line}: ${message}`)).toEqual([
      "1: it is not NAME=value",
      "3: it is not NAME=value",
      "4: its quotes do not match",
      "5: its quotes do not match",
      "6: its quotes do not match",
      "7: it is not NAME=value",
    ]);
  });
});
