-- What was found, where it is asked for: by servers with one verdict, and by those who read figures of all of them.
--
-- What now exists: registry.endpoint_verdicts, metrics.sweep_times and endpoint_changes.more; and, in a Postgres before
-- 18, a registry.fold that is the same whatever the database's locale is. Triggers fill the two tables, whichever
-- release writes. Readers go on meanwhile; writers wait, as in 0011.

LOCK TABLE registry.mcp_servers, registry.endpoints, registry.endpoint_health, metrics.sweeps IN SHARE ROW EXCLUSIVE MODE;

-- The verdict of each endpoint that is not retired; null where it was not checked yet. A row is written when an endpoint
-- comes, goes or changes its verdict, and never for a check that found it as before: so an index over it costs next to
-- nothing, where one over registry.endpoint_health would have no page that a reader need not look into.
CREATE TABLE registry.endpoint_verdicts (
    -- No foreign key: a trigger deletes it with the endpoint, and a check of each registration would cost more.
    endpoint_id bigint PRIMARY KEY,
    verdict     metrics.verdict
);
-- The endpoints with one verdict, or none; and how many have which, by the index alone.
CREATE INDEX endpoint_verdicts_verdict_idx ON registry.endpoint_verdicts (verdict, endpoint_id);
-- The servers that use these.
CREATE INDEX mcp_servers_endpoint_id_idx ON registry.mcp_servers (endpoint_id);

-- Both run as their owner: who writes what was found can write nothing else here.
CREATE FUNCTION registry.keep_endpoint() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = ''
AS $$
BEGIN
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.retired_at IS NULL) THEN
        INSERT INTO registry.endpoint_verdicts (endpoint_id, verdict)
        VALUES (NEW.id, (SELECT h.verdict FROM registry.endpoint_health AS h WHERE h.endpoint_id = NEW.id))
            ON CONFLICT (endpoint_id) DO UPDATE SET verdict = excluded.verdict;
    ELSE
        DELETE FROM registry.endpoint_verdicts WHERE endpoint_id = OLD.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER keep_endpoint AFTER INSERT ON registry.endpoints
    FOR EACH ROW WHEN (NEW.retired_at IS NULL) EXECUTE FUNCTION registry.keep_endpoint();
CREATE TRIGGER keep_changed_endpoint AFTER UPDATE OF retired_at ON registry.endpoints
    FOR EACH ROW WHEN ((NEW.retired_at IS NULL) <> (OLD.retired_at IS NULL)) EXECUTE FUNCTION registry.keep_endpoint();
CREATE TRIGGER keep_no_endpoint AFTER DELETE ON registry.endpoints
    FOR EACH ROW WHEN (OLD.retired_at IS NULL) EXECUTE FUNCTION registry.keep_endpoint();

CREATE FUNCTION registry.keep_verdict() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = ''
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE registry.endpoint_verdicts SET verdict = NULL WHERE endpoint_id = OLD.endpoint_id;
    ELSE
        UPDATE registry.endpoint_verdicts SET verdict = NEW.verdict WHERE endpoint_id = NEW.endpoint_id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER keep_verdict AFTER INSERT OR DELETE ON registry.endpoint_health
    FOR EACH ROW EXECUTE FUNCTION registry.keep_verdict();
CREATE TRIGGER keep_changed_verdict AFTER UPDATE ON registry.endpoint_health
    FOR EACH ROW WHEN (NEW.verdict <> OLD.verdict) EXECUTE FUNCTION registry.keep_verdict();

INSERT INTO registry.endpoint_verdicts (endpoint_id, verdict)
SELECT e.id, h.verdict
  FROM registry.endpoints AS e
  LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
 WHERE e.retired_at IS NULL
 ORDER BY e.id;

-- How many checks of an hour found a server up after so long (metrics.bucket): the sum of metrics.sweeps. A day of sweeps
-- has a hundred times as many numbers, and adding them up took most of the overview of all servers.
CREATE TABLE metrics.sweep_times (
    hour   timestamptz NOT NULL,
    bucket smallint NOT NULL,
    n      bigint NOT NULL,
    PRIMARY KEY (hour, bucket)
)
WITH (fillfactor = 50);

-- By what has changed, so that sweeps that are settled side by side do not undo each other. OLD is null of a new row.
CREATE FUNCTION metrics.add_times() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = ''
AS $$
BEGIN
    INSERT INTO metrics.sweep_times AS t (hour, bucket, n)
    SELECT pg_catalog.date_bin('1 hour', NEW.slot, '2000-01-01Z'), moved.bucket, pg_catalog.sum(moved.n)
      FROM (SELECT pg_catalog.unnest(NEW.buckets) AS bucket, pg_catalog.unnest(NEW.counts) AS n
             UNION ALL
            SELECT pg_catalog.unnest(OLD.buckets), -pg_catalog.unnest(OLD.counts)) AS moved
     GROUP BY moved.bucket
    HAVING pg_catalog.sum(moved.n) <> 0
     ORDER BY moved.bucket
        ON CONFLICT (hour, bucket) DO UPDATE SET n = t.n + excluded.n;
    RETURN NULL;
END
$$;
CREATE TRIGGER add_times AFTER INSERT ON metrics.sweeps
    FOR EACH ROW WHEN (NEW.counts <> '{}') EXECUTE FUNCTION metrics.add_times();
CREATE TRIGGER add_changed_times AFTER UPDATE OF counts ON metrics.sweeps
    FOR EACH ROW WHEN (NEW.counts <> OLD.counts) EXECUTE FUNCTION metrics.add_times();

INSERT INTO metrics.sweep_times (hour, bucket, n)
SELECT date_bin('1 hour', slot, '2000-01-01Z'), bucket, sum(n)
  FROM (SELECT slot, unnest(buckets) AS bucket, unnest(counts) AS n FROM metrics.sweeps) AS times
 GROUP BY 1, 2;

-- Text as people compare it, as in 0003, whose function for a Postgres before 18 left it to the locale of the database
-- which letters have two cases: with the locale C none but ASCII's, and Cherokee's the other way round with most. Taken
-- apart as far as Unicode goes (NFKD), 957 characters of its 14.0 (CaseFolding.txt, statuses C and S) are left that fold to
-- another one, and the two forms of a sharp s. Postgres 15 composes and takes apart by the same Unicode.
DO $$
BEGIN
    IF current_setting('server_version_num')::integer < 180000 THEN
        EXECUTE $sql$
            CREATE OR REPLACE FUNCTION registry.fold(given text) RETURNS text
                LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
                RETURN normalize(replace(replace(translate(
                        lower(normalize(registry.seen(given), NFKD) COLLATE pg_catalog."C"),
                        'ÆÐØÞĐĦŁŊŒŦƁƂƄƆƇƉƊƋƎƏƐƑƓƔƖƗƘƜƝƟƢƤƦƧƩƬƮƱƲƳƵƷƸƼǤǶǷȜȠȢȤȺȻȽȾɁɃɄɅɆɈɊɌɎͅͰͲͶͿΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩςϏϘϚϜϞϠ'
                        'ϢϤϦϨϪϬϮϷϺϽϾϿЂЄЅІЈЉЊЋЏАБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯѠѢѤѦѨѪѬѮѰѲѴѸѺѼѾҀҊҌҎҐҒҔҖҘҚҜҞҠҢҤҦҨҪҬҮҰҲҴҶҸҺҼҾӀӃӅӇӉ'
                        'ӋӍӔӘӠӨӶӺӼӾԀԂԄԆԈԊԌԎԐԒԔԖԘԚԜԞԠԢԤԦԨԪԬԮԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՁՂՃՄՅՆՇՈՉՊՋՌՍՎՏՐՑՒՓՔՕՖႠႡႢႣႤႥႦႧႨႩႪႫႬႭႮႯႰႱႲႳႴႵႶႷႸႹႺႻ'
                        'ႼႽႾႿჀჁჂჃჄჅჇჍᏸᏹᏺᏻᏼᏽᲀᲁᲂᲃᲄᲅᲆᲇᲈᲐᲑᲒᲓᲔᲕᲖᲗᲘᲙᲚᲛᲜᲝᲞᲟᲠᲡᲢᲣᲤᲥᲦᲧᲨᲩᲪᲫᲬᲭᲮᲯᲰᲱᲲᲳᲴᲵᲶᲷᲸᲹᲺᲽᲾᲿỺỼỾℲↃⰀⰁⰂⰃⰄⰅⰆⰇⰈⰉⰊⰋⰌⰍⰎⰏⰐⰑⰒⰓⰔⰕ'
                        'ⰖⰗⰘⰙⰚⰛⰜⰝⰞⰟⰠⰡⰢⰣⰤⰥⰦⰧⰨⰩⰪⰫⰬⰭⰮⰯⱠⱢⱣⱤⱧⱩⱫⱭⱮⱯⱰⱲⱵⱾⱿⲀⲂⲄⲆⲈⲊⲌⲎⲐⲒⲔⲖⲘⲚⲜⲞⲠⲢⲤⲦⲨⲪⲬⲮⲰⲲⲴⲶⲸⲺⲼⲾⳀⳂⳄⳆⳈⳊⳌⳎⳐⳒⳔⳖⳘⳚⳜⳞⳠⳢⳫⳭⳲꙀꙂꙄꙆꙈꙊ'
                        'ꙌꙎꙐꙒꙔꙖꙘꙚꙜꙞꙠꙢꙤꙦꙨꙪꙬꚀꚂꚄꚆꚈꚊꚌꚎꚐꚒꚔꚖꚘꚚꜢꜤꜦꜨꜪꜬꜮꜲꜴꜶꜸꜺꜼꜾꝀꝂꝄꝆꝈꝊꝌꝎꝐꝒꝔꝖꝘꝚꝜꝞꝠꝢꝤꝦꝨꝪꝬꝮꝹꝻꝽꝾꞀꞂꞄꞆꞋꞍꞐꞒꞖꞘꞚꞜꞞꞠꞢꞤꞦꞨꞪꞫꞬꞭꞮꞰꞱꞲꞳ'
                        'ꞴꞶꞸꞺꞼꞾꟀꟂꟄꟅꟆꟇꟉꟐꟖꟘꟵꭰꭱꭲꭳꭴꭵꭶꭷꭸꭹꭺꭻꭼꭽꭾꭿꮀꮁꮂꮃꮄꮅꮆꮇꮈꮉꮊꮋꮌꮍꮎꮏꮐꮑꮒꮓꮔꮕꮖꮗꮘꮙꮚꮛꮜꮝꮞꮟꮠꮡꮢꮣꮤꮥꮦꮧꮨꮩꮪꮫꮬꮭꮮꮯꮰꮱꮲꮳꮴꮵꮶꮷꮸꮹꮺꮻꮼꮽꮾꮿ𐐀𐐁𐐂'
                        '𐐃𐐄𐐅𐐆𐐇𐐈𐐉𐐊𐐋𐐌𐐍𐐎𐐏𐐐𐐑𐐒𐐓𐐔𐐕𐐖𐐗𐐘𐐙𐐚𐐛𐐜𐐝𐐞𐐟𐐠𐐡𐐢𐐣𐐤𐐥𐐦𐐧𐒰𐒱𐒲𐒳𐒴𐒵𐒶𐒷𐒸𐒹𐒺𐒻𐒼𐒽𐒾𐒿𐓀𐓁𐓂𐓃𐓄𐓅𐓆𐓇𐓈𐓉𐓊𐓋𐓌𐓍𐓎𐓏𐓐𐓑𐓒𐓓𐕰𐕱𐕲𐕳𐕴𐕵𐕶𐕷𐕸𐕹𐕺𐕼𐕽𐕾𐕿𐖀𐖁𐖂𐖃𐖄𐖅𐖆𐖇𐖈𐖉𐖊𐖌'
                        '𐖍𐖎𐖏𐖐𐖑𐖒𐖔𐖕𐲀𐲁𐲂𐲃𐲄𐲅𐲆𐲇𐲈𐲉𐲊𐲋𐲌𐲍𐲎𐲏𐲐𐲑𐲒𐲓𐲔𐲕𐲖𐲗𐲘𐲙𐲚𐲛𐲜𐲝𐲞𐲟𐲠𐲡𐲢𐲣𐲤𐲥𐲦𐲧𐲨𐲩𐲪𐲫𐲬𐲭𐲮𐲯𐲰𐲱𐲲𑢠𑢡𑢢𑢣𑢤𑢥𑢦𑢧𑢨𑢩𑢪𑢫𑢬𑢭𑢮𑢯𑢰𑢱𑢲𑢳𑢴𑢵𑢶𑢷𑢸𑢹𑢺𑢻𑢼𑢽𑢾𑢿𖹀𖹁𖹂𖹃𖹄𖹅𖹆𖹇𖹈'
                        '𖹉𖹊𖹋𖹌𖹍𖹎𖹏𖹐𖹑𖹒𖹓𖹔𖹕𖹖𖹗𖹘𖹙𖹚𖹛𖹜𖹝𖹞𖹟𞤀𞤁𞤂𞤃𞤄𞤅𞤆𞤇𞤈𞤉𞤊𞤋𞤌𞤍𞤎𞤏𞤐𞤑𞤒𞤓𞤔𞤕𞤖𞤗𞤘𞤙𞤚𞤛𞤜𞤝𞤞𞤟𞤠𞤡',
                        'æðøþđħłŋœŧɓƃƅɔƈɖɗƌǝəɛƒɠɣɩɨƙɯɲɵƣƥʀƨʃƭʈʊʋƴƶʒƹƽǥƕƿȝƞȣȥⱥȼƚⱦɂƀʉʌɇɉɋɍɏιͱͳͷϳαβγδεζηθικλμνξοπρστυφχψωσϗϙϛϝϟϡ'
                        'ϣϥϧϩϫϭϯϸϻͻͼͽђєѕіјљњћџабвгдежзиклмнопрстуфхцчшщъыьэюяѡѣѥѧѩѫѭѯѱѳѵѹѻѽѿҁҋҍҏґғҕҗҙқҝҟҡңҥҧҩҫҭүұҳҵҷҹһҽҿӏӄӆӈӊ'
                        'ӌӎӕәӡөӷӻӽӿԁԃԅԇԉԋԍԏԑԓԕԗԙԛԝԟԡԣԥԧԩԫԭԯաբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆⴀⴁⴂⴃⴄⴅⴆⴇⴈⴉⴊⴋⴌⴍⴎⴏⴐⴑⴒⴓⴔⴕⴖⴗⴘⴙⴚⴛ'
                        'ⴜⴝⴞⴟⴠⴡⴢⴣⴤⴥⴧⴭᏰᏱᏲᏳᏴᏵвдосттъѣꙋაბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰჱჲჳჴჵჶჷჸჹჺჽჾჿỻỽỿⅎↄⰰⰱⰲⰳⰴⰵⰶⰷⰸⰹⰺⰻⰼⰽⰾⰿⱀⱁⱂⱃⱄⱅ'
                        'ⱆⱇⱈⱉⱊⱋⱌⱍⱎⱏⱐⱑⱒⱓⱔⱕⱖⱗⱘⱙⱚⱛⱜⱝⱞⱟⱡɫᵽɽⱨⱪⱬɑɱɐɒⱳⱶȿɀⲁⲃⲅⲇⲉⲋⲍⲏⲑⲓⲕⲗⲙⲛⲝⲟⲡⲣⲥⲧⲩⲫⲭⲯⲱⲳⲵⲷⲹⲻⲽⲿⳁⳃⳅⳇⳉⳋⳍⳏⳑⳓⳕⳗⳙⳛⳝⳟⳡⳣⳬⳮⳳꙁꙃꙅꙇꙉꙋ'
                        'ꙍꙏꙑꙓꙕꙗꙙꙛꙝꙟꙡꙣꙥꙧꙩꙫꙭꚁꚃꚅꚇꚉꚋꚍꚏꚑꚓꚕꚗꚙꚛꜣꜥꜧꜩꜫꜭꜯꜳꜵꜷꜹꜻꜽꜿꝁꝃꝅꝇꝉꝋꝍꝏꝑꝓꝕꝗꝙꝛꝝꝟꝡꝣꝥꝧꝩꝫꝭꝯꝺꝼᵹꝿꞁꞃꞅꞇꞌɥꞑꞓꞗꞙꞛꞝꞟꞡꞣꞥꞧꞩɦɜɡɬɪʞʇʝꭓ'
                        'ꞵꞷꞹꞻꞽꞿꟁꟃꞔʂᶎꟈꟊꟑꟗꟙꟶᎠᎡᎢᎣᎤᎥᎦᎧᎨᎩᎪᎫᎬᎭᎮᎯᎰᎱᎲᎳᎴᎵᎶᎷᎸᎹᎺᎻᎼᎽᎾᎿᏀᏁᏂᏃᏄᏅᏆᏇᏈᏉᏊᏋᏌᏍᏎᏏᏐᏑᏒᏓᏔᏕᏖᏗᏘᏙᏚᏛᏜᏝᏞᏟᏠᏡᏢᏣᏤᏥᏦᏧᏨᏩᏪᏫᏬᏭᏮᏯ𐐨𐐩𐐪'
                        '𐐫𐐬𐐭𐐮𐐯𐐰𐐱𐐲𐐳𐐴𐐵𐐶𐐷𐐸𐐹𐐺𐐻𐐼𐐽𐐾𐐿𐑀𐑁𐑂𐑃𐑄𐑅𐑆𐑇𐑈𐑉𐑊𐑋𐑌𐑍𐑎𐑏𐓘𐓙𐓚𐓛𐓜𐓝𐓞𐓟𐓠𐓡𐓢𐓣𐓤𐓥𐓦𐓧𐓨𐓩𐓪𐓫𐓬𐓭𐓮𐓯𐓰𐓱𐓲𐓳𐓴𐓵𐓶𐓷𐓸𐓹𐓺𐓻𐖗𐖘𐖙𐖚𐖛𐖜𐖝𐖞𐖟𐖠𐖡𐖣𐖤𐖥𐖦𐖧𐖨𐖩𐖪𐖫𐖬𐖭𐖮𐖯𐖰𐖱𐖳'
                        '𐖴𐖵𐖶𐖷𐖸𐖹𐖻𐖼𐳀𐳁𐳂𐳃𐳄𐳅𐳆𐳇𐳈𐳉𐳊𐳋𐳌𐳍𐳎𐳏𐳐𐳑𐳒𐳓𐳔𐳕𐳖𐳗𐳘𐳙𐳚𐳛𐳜𐳝𐳞𐳟𐳠𐳡𐳢𐳣𐳤𐳥𐳦𐳧𐳨𐳩𐳪𐳫𐳬𐳭𐳮𐳯𐳰𐳱𐳲𑣀𑣁𑣂𑣃𑣄𑣅𑣆𑣇𑣈𑣉𑣊𑣋𑣌𑣍𑣎𑣏𑣐𑣑𑣒𑣓𑣔𑣕𑣖𑣗𑣘𑣙𑣚𑣛𑣜𑣝𑣞𑣟𖹠𖹡𖹢𖹣𖹤𖹥𖹦𖹧𖹨'
                        '𖹩𖹪𖹫𖹬𖹭𖹮𖹯𖹰𖹱𖹲𖹳𖹴𖹵𖹶𖹷𖹸𖹹𖹺𖹻𖹼𖹽𖹾𖹿𞤢𞤣𞤤𞤥𞤦𞤧𞤨𞤩𞤪𞤫𞤬𞤭𞤮𞤯𞤰𞤱𞤲𞤳𞤴𞤵𞤶𞤷𞤸𞤹𞤺𞤻𞤼𞤽𞤾𞤿𞥀𞥁𞥂𞥃'), 'ß', 'ss'), 'ẞ', 'ss'), NFKC)
        $sql$;
        -- Of ASCII it says what it said.
        UPDATE registry.mcp_servers
           SET search_fold = registry.fold(name || E'\x1f' || display_name)
         WHERE display_name ~ '[^\x01-\x7f]'
           AND search_fold <> registry.fold(name || E'\x1f' || display_name);
        UPDATE registry.server_metadata
           SET tags_fold = registry.fold_tags(tags)
         WHERE tags::text ~ '[^\x01-\x7f]'
           AND tags_fold IS DISTINCT FROM registry.fold_tags(tags);
    END IF;
END
$$;

-- Of an endpoint that changes all the time a hundred changes of a day are kept: how many there were between this one and
-- the one before it that were not. Last, because readers wait for it.
ALTER TABLE metrics.endpoint_changes ADD COLUMN more integer NOT NULL DEFAULT 0;
