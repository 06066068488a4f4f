// What a function that must refuse throws, so that a table can name code and message of every fault.

import { expect } from "bun:test";

import { OrchestratorError } from "../../src/errors.ts";

/** The refusal of `body` as `code: message`; fails if it throws nothing, or anything else. */
export function refusal(body: () => unknown): string {
  let result: unknown;
  try {
    result = body();
  } catch (error) {
    expect(error).toBeInstanceOf(OrchestratorError);
    const { code, message } = error as OrchestratorError;
    return `${code}: ${message}`;
  }
  throw new Error(`Expected a refusal, and got ${Bun.inspect(result)}`);
}
