import { describe, expect, test } from "bun:test";

import {
  assert,
  ERROR_CODES,
  errorCode,
  messageChain,
  OrchestratorError,
  systemCode,
} from "../src/errors.ts";

function systemError(code: string, errno: number): Error {
  return Object.assign(new Error(`${code}: text of the runtime, open '/x'`), { code, errno });
}

test("ERROR_CODES is a closed list (P-14)", () => {
  expect(ERROR_CODES.join(" ")).toBe(
    "bad_request not_found already_exists wrong_state limit_exceeded cannot_run not_configured " +
      "upload_failed stop_failed permission_denied unreachable timed_out misuse state_unusable io internal",
  );
});

describe("OrchestratorError", () => {
  test("carries code, message, cause and hint", () => {
    const cause = new Error("inner");
    const error = new OrchestratorError("not_found", "Cannot stop", { cause, hint: "list them" });
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe("OrchestratorError");
    expect(error.code).toBe("not_found");
    expect(error.message).toBe("Cannot stop");
    expect(error.cause).toBe(cause);
    expect(error.hint).toBe("list them");
  });

  test("without options has neither cause nor hint", () => {
    const error = new OrchestratorError("io", "Cannot read");
    expect("cause" in error).toBe(false);
    expect(error.hint).toBeUndefined();
  });
});

describe("messageChain()", () => {
  test("begins with the outermost message", () => {
    const innermost = new Error("c");
    const inner = new Error("b", { cause: innermost });
    expect(messageChain(new OrchestratorError("io", "a", { cause: inner }))).toEqual([
      "a",
      "b",
      "c",
    ]);
  });

  test("ends at 16 messages when the causes form a ring", () => {
    const error = new Error("a");
    error.cause = error;
    expect(messageChain(error)).toEqual(new Array(16).fill("a"));
  });

  const described: [what: string, thrown: unknown, chain: string[]][] = [
    ["nothing", undefined, []],
    ["null", null, []],
    ["a string", "gone", ["gone"]],
    ["a number", 0, ["0"]],
    ["a symbol", Symbol("x"), ["Symbol(x)"]],
    ["an empty message", new Error(""), [""]],
    ["a cause that is no error", new Error("a", { cause: "b" }), ["a", "b"]],
    ["a folder in the place of a file", systemError("EISDIR", -21), ["it is a folder"]],
    [
      "a system error without the runtime's prefix",
      systemError("ENOENT", -2),
      ["no such file or directory"],
    ],
    ["a system error whose number is positive", systemError("EACCES", 13), ["permission denied"]],
    [
      "an error with a code of its own",
      Object.assign(new Error("m"), { code: "E_X", errno: -2 }),
      ["m"],
    ],
    ["a host that has no address", systemError("ENOTFOUND", -3_008), ["no such host"]],
    ["a disk without room", systemError("ENOSPC", -28), ["the disk is full"]],
    ["an error code without a number", Object.assign(new Error("m"), { code: "ENOENT" }), ["m"]],
  ];
  test.each(described)("describes %s", (_, thrown, chain) => {
    expect(messageChain(thrown)).toEqual(chain);
  });

  const ofSeveralLines: [what: string, thrown: unknown, sentence: string][] = [
    ["an error", new Error("first\n  second\r\nthird"), "first; second; third"],
    ["an error with a bare carriage return", new Error("first\rsecond"), "first; second"],
    ["an error that ends with a newline", new Error("first\n"), "first"],
    ["a string", "first\nsecond", "first; second"],
  ];
  test.each(ofSeveralLines)("makes one sentence of the lines of %s", (_, thrown, sentence) => {
    expect(messageChain(thrown)).toEqual([sentence]);
  });
});

test("messageChain() takes no longer for a message of many spaces", () => {
  const start = performance.now();
  const message = `Cannot use "${" ".repeat(32_768)}"`;
  expect(messageChain(new Error(message))).toEqual([message]);
  expect(performance.now() - start).toBeLessThan(200);
});

test("errorCode() takes whatever is not an OrchestratorError for a defect", () => {
  expect(errorCode(new OrchestratorError("misuse", ""))).toBe("misuse");
  expect(errorCode(new Error("", { cause: new OrchestratorError("misuse", "") }))).toBe("internal");
  expect(errorCode(undefined)).toBe("internal");
  expect(errorCode({ code: "misuse" })).toBe("internal");
});

test("systemCode() is the system's name of an error, or undefined", () => {
  expect(systemCode(systemError("ECONNREFUSED", -111))).toBe("ECONNREFUSED");
  expect(systemCode(systemError("E2BIG", -7))).toBe("E2BIG");
  for (const other of [undefined, null, "ENOENT", {}, { code: 2 }, { code: "" }, { code: "E" }]) {
    expect(systemCode(other)).toBeUndefined();
  }
  expect(systemCode({ code: "ERR_INVALID_ARG_TYPE" })).toBeUndefined();
  expect(systemCode(new OrchestratorError("io", ""))).toBeUndefined();
});

test("assert() throws a defect, and only when the condition does not hold", () => {
  assert(1, "never");
  let thrown: unknown;
  try {
    assert(0, "the queue is empty");
  } catch (error) {
    thrown = error;
  }
  expect(errorCode(thrown)).toBe("internal");
  expect((thrown as Error).message).toBe("Defect: the queue is empty");
});
