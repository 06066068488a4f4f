// S3, S5 and S8 at a small size: whoever may not is told so, and nothing of it is carried out.

import { setDefaultTimeout, test } from "bun:test";

import {
  elsewhere,
  escapes,
  intruder,
  isRoot,
  otherMachine,
  otherUser,
} from "../experiments/strangers.ts";

setDefaultTimeout(60_000);

test.skipIf(!isRoot)("Another user is not served over TCP from loopback (S5)", async () => {
  await otherUser(40);
});

test.skipIf(elsewhere === undefined)("No guess stands for a token (S5)", async () => {
  await otherMachine(200, elsewhere as string);
});

test("Another process of the user is not served at the socket of an instance (S3)", async () => {
  await intruder(60);
});

test("No upload leads elsewhere, and none that was changed is started (S8)", async () => {
  await escapes(60);
});
