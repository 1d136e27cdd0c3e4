// The browser of a person with a wallet: opens the page that network-cli asks to open, signs, and stays until the command
// line's own last page is shown. Takes Chromium's path, the wallet's private key, a folder for screenshots or '', and the
// page's address.

import path from 'node:path'
import { chromium } from 'playwright-core'
import { install } from './wallet.mjs'

const [executablePath, key, screens, url] = process.argv.slice(2)
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
const context = await browser.newContext()
// A busy machine may take its time; nothing waits for it when all is well.
context.setDefaultTimeout(120_000)
const page = await context.newPage()
const screen = async (name) => { if (screens) await page.screenshot({ path: path.join(screens, `${name}.png`) }) }
await install(context, [{ name: 'Test Fox', key }])
await page.goto(url)
await page.getByRole('button', { name: 'Test Fox' }).waitFor()
await screen('cli-1-page')
await page.getByRole('button', { name: 'Test Fox' }).click()
await page.waitForURL(/\/done$/)
console.log(await page.getByRole('heading').textContent())
console.log(await page.getByRole('status').textContent())
await screen('cli-2-done')
// Neither the address nor the history keeps a secret.
await page.goBack().catch(() => null)
console.log(`back: ${page.url().includes('api_key') || page.url().includes('rt_') ? 'a secret' : 'no secret'}`)
await browser.close()
