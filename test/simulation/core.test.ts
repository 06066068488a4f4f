// The whole core, in a system where everything fails that may fail.

import { property } from "../support/random.ts";
import { simulateCore } from "./happenings.ts";

property("A core keeps its promises, whatever its system does", 10_000, simulateCore);
