import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { FakeDaemon } from "../../support/fake-daemon.ts";
import { INFO, run } from "../../support/typist.ts";

/** A daemon that holds nothing yet, and refuses what is added as another `up` was faster. */
function outpacing(): FakeDaemon {
  return new FakeDaemon((body, connection) => {
    const request: unknown = JSON.parse(String(body));
    if (request === "Info") connection.ok({ ...INFO, runtimes: {}, routes: [] });
    else connection.refuse("already_exists", 'Cannot add instance "01": the name "ping" is taken');
  });
}

test("up says that somebody else was faster, and what to do", async () => {
  using daemon = outpacing();
  writeFileSync(join(daemon.folder, "ping"), "", { mode: 0o700 });
  writeFileSync(join(daemon.folder, "orchestrator.toml"), "[instances.ping]\npath = 'ping'\n");
  const ran = await run(["up", "--socket", daemon.path], { folder: daemon.folder });
  expect(ran.code).toBe(1);
  expect(ran.err).toBe(
    'error: Cannot add instance "01": the name "ping" is taken\n' +
      "hint: somebody has changed that since the plan was made, perhaps another up or down\n" +
      "done: nothing\nnot done: add ping, start ping\nhint: type it again to go on from there\n",
  );
});
