// Where things lie. Everything that is made goes below target/e2e, which git ignores.
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

export const suite = fileURLToPath(new URL('..', import.meta.url));
export const root = fileURLToPath(new URL('../../..', import.meta.url));
export const work = join(root, 'target', 'e2e');
export const logs = join(work, 'logs');
export const screenshots = join(work, 'screenshots');
