import { describe, expect, test } from "bun:test";

import { Answers } from "../../src/control/answers.ts";
import { GATHER_FRAME_BYTES } from "../../src/limits.ts";
import { JsonPieces } from "../../src/protocol.ts";

/** What was written, one item a write. */
function written(isNative: boolean, ...held: readonly (string | JsonPieces)[]): Buffer[] {
  const writes: Buffer[] = [];
  const answers = new Answers({
    connection: {
      write: (bytes) => {
        writes.push(bytes as Buffer);
        return bytes.length;
      },
    },
    isNative: () => isNative,
    commit: () => undefined,
    onIdle: () => {},
    onFault: (error) => {
      throw error;
    },
  });
  for (const answer of held) answers.hold(() => answer, false);
  answers.settle();
  return writes;
}

describe("An answer in pieces", () => {
  const long = Buffer.alloc(GATHER_FRAME_BYTES + 1, " ");
  const pieces = new JsonPieces([Buffer.from("["), long, Buffer.from("]"), Buffer.from(" ")]);
  const text = `[${long.toString()}] `;

  test.each([false, true])("is on the wire what it is as a text, native %p", (isNative) => {
    const asText = Buffer.concat(written(isNative, "1", text, "2"));
    expect(Buffer.concat(written(isNative, "1", pieces, "2")).equals(asText)).toBeTrue();
  });

  test("is written without a copy of what is long, and what is short in one write", () => {
    const writes = written(false, "1", pieces, "2");
    expect(writes.map((bytes) => bytes.toString())).toEqual(["1\n[", long.toString(), "] \n2\n"]);
    expect(writes[1]).toBe(long);
  });
});
