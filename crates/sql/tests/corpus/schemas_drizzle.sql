CREATE TABLE `__drizzle_migrations` (`id` INTEGER PRIMARY KEY, `hash` text NOT NULL, `created_at` numeric);
CREATE TABLE `users` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`full_name` text NOT NULL,
	`email` text NOT NULL,
	`created` integer DEFAULT (unixepoch()) NOT NULL,
	`meta` text DEFAULT '{"a":1}'
);
CREATE UNIQUE INDEX `users_email_unique` ON `users` (`email`);
CREATE TABLE `posts` (`id` integer PRIMARY KEY NOT NULL, `author` integer NOT NULL, `text` text, FOREIGN KEY (`author`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE cascade);
insert into "users" ("id", "full_name", "email", "created", "meta") values (null, 'Ann', 'a@x', 5, null) returning "id", "full_name";
insert into "users" ("full_name", "email") values ('Bob', 'b@x') on conflict ("email") do update set "full_name" = excluded."full_name";
insert into "users" ("full_name", "email") values ('Bobby', 'b@x') on conflict ("users"."email") do update set "full_name" = excluded."full_name" where "users"."full_name" <> 'x';
insert into "posts" ("author", "text") values (1, 'hello'), (1, 'again');
select "id", "full_name", "email" from "users" where "users"."id" = 1;
select "users"."id", "users"."full_name", "posts"."text" from "users" left join "posts" on "users"."id" = "posts"."author" where ("users"."id" = 1 or "users"."email" like '%x') order by "posts"."id" desc limit 5;
select "id", (select coalesce(json_group_array(json_array("id", "text")), json_array()) as "data" from (select * from "posts" "users_posts" where "users_posts"."author" = "users"."id") "users_posts") as "posts" from "users" "users" order by "users"."id";
select count(*) from "users" inner join "posts" "p" on "p"."author" = "users"."id" group by "users"."id" having count(*) > 1;
update "users" set "meta" = json_set("meta", '$.b', 2) where "users"."id" = 2 returning "meta";
delete from "users" where "users"."id" = 1 returning "email";
select * from "posts";
update users set created = 7;
SELECT m.name as "tableName", p.name as "columnName", p.type as "columnType", p."notnull" as "notNull", p.dflt_value as "defaultValue", p.pk as pk, p.hidden as hidden, m.sql, m.type as type FROM sqlite_master AS m JOIN pragma_table_xinfo(m.name) AS p WHERE (m.type = 'table' OR m.type = 'view') and m.tbl_name != 'sqlite_sequence' and m.tbl_name != 'sqlite_stat1' and m.tbl_name != '_litestream_seq' and m.tbl_name != '_litestream_lock' and m.tbl_name != 'libsql_wasm_func_table' and m.tbl_name != '__drizzle_migrations' and m.tbl_name != '_cf_KV';
SELECT f."table" as tableTo, f."from", f."to", f.on_update, f.on_delete, m.name FROM sqlite_master m, pragma_foreign_key_list(m.name) as f WHERE m.type = 'table';
SELECT m.tbl_name as tableName, il.name as indexName, ii.name as columnName, il.[unique] as isUnique, il.seq as seq FROM sqlite_master AS m, pragma_index_list(m.name) AS il, pragma_index_info(il.name) AS ii WHERE m.type = 'table' and il.name NOT LIKE 'sqlite_autoindex_%' and m.tbl_name != '_cf_KV';
