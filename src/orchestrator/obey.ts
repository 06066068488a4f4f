// What a privileged instance asks for: carried out, durable before it is answered, and on record.

import { messageChain } from "../errors.ts";
import type { InstanceOptions } from "../instance.ts";
import type { TargetLog } from "../log.ts";
import type { Batch } from "../memory.ts";
import type { InstanceId, Priority } from "../model.ts";

/** Who carries it out. */
interface Orchestrator {
  start(id: InstanceId, priority: Priority | undefined): Promise<Batch>;
  stop(id: InstanceId): Promise<Batch>;
  commit(): Promise<void> | undefined;
}

/** @throws why it was not carried out, or cannot be kept */
export async function obey(
  orchestrator: Orchestrator,
  by: InstanceId,
  request: Parameters<InstanceOptions["control"]>[0],
  audit: TargetLog,
): Promise<void> {
  const { kind, id } = request;
  const asked = { by: `instance ${by}`, request: `${kind}(${id})` };
  const tell = (result: string): void =>
    audit.info("run:instance", "change asked for", { ...asked, result });
  try {
    const batch = await (kind === "Start"
      ? orchestrator.start(id, request.priority)
      : orchestrator.stop(id));
    await orchestrator.commit();
    if (batch.error !== undefined) throw batch.error;
    tell("done");
  } catch (error) {
    tell(`refused: ${messageChain(error).join(": ")}`);
    throw error;
  }
}
