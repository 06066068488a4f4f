// Which part of a history the words of `logs` and `events` ask for.

import { OrchestratorError } from "../errors.ts";
import type { InstanceId } from "../model.ts";
import type { HistoryQuery } from "../protocol.ts";
import type { Session } from "./session.ts";
import { parseCount, parseTime } from "./values.ts";

/** What is followed begins with so many, as `tail -f` does. */
const FOLLOWED_LINES = 10;

/** No ids: of all. */
export function queryOf({ values, terminal }: Session, ids: readonly InstanceId[]): HistoryQuery {
  const nowMs = terminal.now();
  const time = (option: string): number | undefined => parseTime(values.get(option) ?? "", nowMs);
  const follow = values.has("--follow");
  const [since, until] = [time("--since"), time("--until")];
  if (since !== undefined && until !== undefined && until < since) {
    throw new OrchestratorError("misuse", "Cannot use --until: it lies before --since");
  }
  const isOpen = follow && !values.has("--since");
  return {
    ids: ids.length === 0 ? undefined : ids,
    last: parseCount(values.get("--lines") ?? "") ?? (isOpen ? FOLLOWED_LINES : undefined),
    since,
    until,
    follow,
  };
}
