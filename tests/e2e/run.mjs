// Runs all files of tests, or those that are named, one after the other: with one build, one certificate and one Keycloak,
// which takes longer to start than most files to run.
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fetchFronts } from './lib/fronts.mjs';
import { startKeycloak } from './lib/keycloak.mjs';
import { suite } from './lib/paths.mjs';
import { cloakroomBinary, siteCertificate } from './lib/servers.mjs';

const named = process.argv.slice(2);
const files = named.length > 0 ? named : readdirSync(suite).filter((file) => file.endsWith('.test.mjs')).sort();
const binary = cloakroomBinary();
// Nobody waits for it here: the first file runs without it.
const keycloak = await startKeycloak(siteCertificate().certificate);
// Nor for these.
const fetched = files.includes('fronts.test.mjs') ? fetchFronts() : undefined;
const options = ['--test', '--test-concurrency=1', '--test-timeout=600000', '--test-reporter=spec'];
const tests = spawn(process.execPath, [...options, ...files], {
  cwd: suite,
  stdio: 'inherit',
  env: { ...process.env, CLOAKROOM_BIN: binary, E2E_KEYCLOAK: keycloak.origin, ...(fetched && { E2E_FRONTS: '1' }) },
});
process.on('exit', () => tests.kill());
keycloak.ready.catch((error) => {
  // Ended before it was ready because nobody needed it.
  if (tests.exitCode !== null) return;
  console.error(error.message);
  tests.kill();
});
fetched?.catch((error) => {
  console.error(`Envoy, Traefik and Caddy cannot be fetched: ${error.message}`);
  tests.kill();
});
const code = await new Promise((resolve) => tests.once('exit', (code) => resolve(code ?? 1)));
await keycloak.stop();
process.exit(code);
