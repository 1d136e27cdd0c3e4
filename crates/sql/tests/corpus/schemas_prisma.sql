-- CreateTable
CREATE TABLE "User" (
    "id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    "email" TEXT NOT NULL,
    "name" TEXT,
    "createdAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE "Post" (
    "id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    "title" TEXT NOT NULL,
    "published" BOOLEAN NOT NULL DEFAULT false,
    "authorId" INTEGER NOT NULL,
    CONSTRAINT "Post_authorId_fkey" FOREIGN KEY ("authorId") REFERENCES "User" ("id") ON DELETE RESTRICT ON UPDATE CASCADE
);
CREATE TABLE "_CategoryToPost" ("A" INTEGER NOT NULL, "B" INTEGER NOT NULL, CONSTRAINT "_CategoryToPost_B_fkey" FOREIGN KEY ("B") REFERENCES "Post" ("id") ON DELETE CASCADE ON UPDATE CASCADE);
CREATE UNIQUE INDEX "User_email_key" ON "User"("email");
CREATE UNIQUE INDEX "_CategoryToPost_AB_unique" ON "_CategoryToPost"("A", "B");
INSERT INTO `main`.`User` (`email`, `name`) VALUES ('a@x', 'ann') RETURNING `id` AS `id`, `email` AS `email`;
INSERT INTO `main`.`Post` (`title`, `authorId`) VALUES ('t', 1), ('u', 1);
SELECT `main`.`User`.`id`, `main`.`User`.`email` FROM `main`.`User` WHERE (`main`.`User`.`email` = 'a@x' AND 1=1) LIMIT 1 OFFSET 0;
SELECT `main`.`Post`.`id`, `main`.`Post`.`title`, `main`.`Post`.`authorId` FROM `main`.`Post` WHERE `main`.`Post`.`authorId` IN (1, 2);
SELECT COUNT(*) FROM (SELECT `main`.`Post`.`id` FROM `main`.`Post` WHERE 1=1 LIMIT -1 OFFSET 0) AS `sub`;
SELECT `t0`.`id`, `t0`.`email` FROM `main`.`User` AS `t0` LEFT JOIN `main`.`Post` AS `j0` ON (`j0`.`authorId`) = (`t0`.`id`) WHERE (`j0`.`published` = 0 AND (`j0`.`id` IS NOT NULL)) LIMIT 1;
UPDATE `main`.`Post` SET `published` = 1 WHERE (`main`.`Post`.`id` = 1 AND 1=1) RETURNING `id` AS `id`, `published` AS `published`;
DELETE FROM `main`.`Post` WHERE (`main`.`Post`.`id` = 2 AND 1=1);
DELETE FROM `main`.`User` WHERE `main`.`User`.`id` = 1;
CREATE TABLE "new_Post" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "title" TEXT NOT NULL, "body" TEXT, "authorId" INTEGER NOT NULL, CONSTRAINT "Post_authorId_fkey" FOREIGN KEY ("authorId") REFERENCES "User" ("id") ON DELETE RESTRICT ON UPDATE CASCADE);
INSERT INTO "new_Post" ("authorId", "id", "title") SELECT "authorId", "id", "title" FROM "Post";
DROP TABLE "Post";
ALTER TABLE "new_Post" RENAME TO "Post";
SELECT * FROM "Post";
SELECT name, sql FROM sqlite_schema ORDER BY name;
UPDATE "User" SET "createdAt" = 'fixed';
/*refused*/ PRAGMA foreign_keys=OFF;
