// Uploaded programs: which of them are of no more use.

import { messageChain } from "../errors.ts";
import type { TargetLog } from "../log.ts";
import type { Memory } from "../memory.ts";
import type { Registry } from "../registry.ts";
import type { Binaries } from "../store/binaries.ts";

/** Removes uploaded programs that no instance has any more, once the disk knows that. */
export async function collectPrograms(
  instances: Registry,
  memory: Memory,
  binaries: Binaries,
  log: TargetLog,
): Promise<void> {
  const used = (): string[] => instances.all().flatMap(({ binary }) => binary ?? []);
  const before = used(); // a power cut brings it back, if it is let go of while the disk is waited for
  await memory.durable();
  if (memory.isDoubtful) return;
  if (instances.isEnding) return; // nobody is registered any more, and all is to stay
  try {
    binaries.collect(new Set([...before, ...used()]));
  } catch (error) {
    const fields = { error: messageChain(error).join(": ") };
    log.warn("run", "cannot remove unused programs", fields);
  }
}
