import { expect, test } from "bun:test";

import { NOTICE_INTERVAL_MS } from "../src/limits.ts";
import type { LinkKey } from "../src/model.ts";
import { Notices } from "../src/notices.ts";
import { FakeHost } from "./support/host.ts";

const key: LinkKey = { from: undefined, typeName: "T", to: { kind: "instance", id: "b" } };

test("Notices tells both ends at most once a second, and loses no count (P-47)", () => {
  const host = new FakeHost();
  const sent: string[] = [];
  const notices = new Notices(
    (to, typeName, { count, reason }) => sent.push(`${to} ${typeName} ${count} ${reason}`),
    host.after.bind(host),
  );
  notices.add(key, "full", 1, "a");
  notices.add(key, "full", 2, "a");
  expect(sent).toEqual([]); // never within the message path
  host.turn(0);
  expect(sent.splice(0)).toEqual(["a T 3 full", "b T 3 full"]);
  notices.add(key, "oversize", 5, "c");
  notices.add(key, "full", 7, "a");
  host.turn(NOTICE_INTERVAL_MS - 1);
  expect(sent).toEqual([]);
  host.turn(1);
  expect(sent.splice(0)).toEqual(["c T 7 full", "a T 7 full", "b T 7 full"]);
  host.turn(NOTICE_INTERVAL_MS);
  expect(sent.splice(0)).toEqual(["c T 5 oversize", "a T 5 oversize", "b T 5 oversize"]);
  host.turn(10 * NOTICE_INTERVAL_MS);
  expect([sent, host.timers]).toEqual([[], 0]);
});
