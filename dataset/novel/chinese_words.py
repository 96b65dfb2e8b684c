"""What Chinese narration is made of, as patterns: how a clause opens, how it tells who speaks, who is a person."""

import re

PREFIX = (
    r"(?:只见|真个|忽见|却见|但见|又见|正见|却说|且说|话说|再说|单说|原来是?|你看|早有|忽有|又有|只有|内有|有|正是|在那里|从那里|旁边|此时|这时|"
    r"果然|果|忽然|忽|那边|这边|下面|里面|后面|前面|上面|外面|左右|(?!\w{0,2}[认晓识料记])\w{0,3}得|把个|众中|好|若|个|伙|班|群|些|位|般|名|两个|几个|那|这|一|又|即|便|就|却|方|再|次日|当时|于是|连|"
    r"[只忽但又]?[听闻]得|[只忽但又][听闻]|听见|说话间|内中|其间|其中|时(?=有)|内(?=[一有])|[不怎谁岂哪]知|不期|谁想)"
)
MANNER = (
    r"(?:闻言|听说|听了|听得|听罢|听毕|见说|闻得|闻说|听见|见了|看见|高声|厉声|齐声|应声|连声|失声|低声|大声|轻声|柔声|沉声|"
    r"慌忙|连忙|急忙|慌了|大惊|大喜|大怒|十分|欢喜|满心|心中|心里|心下|口里|口中|暗暗|暗想|暗|冷冷|冷|呵呵|嘻嘻|哈哈|微微|"
    r"淡淡|上前|近前|回头|转身|躬身|合掌|忍不住|点头|摇头|叩头|拱手|欠身|开口|转头|一声|着|\w\w地|的|在旁|继续|接着|方才|却才|"
    r"[笑大又忙急即便就也却都齐俱喝叫骂怒喜答回应问叹哭泣奏启禀告报拜谢惊慌再复乃陪遂忽只低轻厉高想思猛喊吩咐])"
)
VERB = (
    r"(?:[道说說曰云叫问問言教喝骂罵喊嚷吼答叹嘆哭笑想念唱报奏禀令命催劝附呼称赞咐诉告]|叫声|道声|喝声|回答|补充|解释|"
    r"嘟囔|嘀咕|低语|开口|反问|追问|打断)"
)
WHOLE = re.compile(rf"^(?P<front>{PREFIX}*?)(?P<name>\w{{1,7}}?){MANNER}*{VERB}$")
AFTER = re.compile(rf"^(?P<name>\w{{1,7}}?){MANNER}*(?:\w{{0,6}}?[地着])?{VERB}(?:着|了)?(?:道)?$")
NO_NAME = re.compile(rf"(?:{PREFIX}|{MANNER}|{VERB}|[他她它你我其之是不心口声来去身手])+")
PERSON = re.compile(
    r"[王神妖怪僧祖魂兽人子女仙官公母婆老将兵鬼圣臣士童汉翁妇师佛精魔者帝后妃爷娘氏兄弟姐妹客侍卫长差徒猴龙头夫家主儿叟尊君生哥嫂叔伯姑丞相妪翁叟童郎工匠员娥嫂姑]$"
)
NOT_IN_NAMES = re.compile(
    r"^[对向与被把将教令命问往从到传]|上前|一齐|磕头|施礼|躬身|真个|时间|自|^[即遂乃因一]|(\w)\1(\w)\2|多时|[是跪坐立站走跑迎倚怎那这都满举忽急飞哼害依夸省方了着住在见毕起入出来去的泪把对与递报扯问叩看按落捽现咬打用滴兢悄推交喝听闻说声叫]|道(?![士人童姑长])"
)
OWN = (  # what may stand before a title: no number, no place and nothing that governs the title
    r"[^\W那这一个些伙众诸与和同把将对向被见叫问教命请救拜要是的了着得道说二三四五六七八九十两几他我你其等在里边厢上下前后中外]"
)
ADVERB = "方连若正又即便就却再次一"
NAMED = "[那这对与向见问叫着被教和]"
ATTRIBUTE = "[金银铜铁头大小老二三四五六七八九十东西南北海上下前后左右南假真众群诸]{0,3}?"
ADDRESSEE = (
    r"(?:对着?|向|与|同|问|教|叫|唤|命|令|骂|劝|告|谢|辞|埋怨|吩咐|扯住|拉住|揪住|扶起|指着|叫声|骂声)"
    r"(?:那|这)?(?P<name>{})"
)
APPEARS = re.compile(
    r"(?:有|(?<![认晓识料记])得|闪过|走出|转过|跳出|闪出|来了|走过|走来|钻出|撞出|惊动|惹得|(?:抬头|[只忽又早却但正猛果]|^)见)\w{0,3}$"
)
AUDIENCE = re.compile(r"见\w+[奏禀拜叩俯]")  # who is seen by one that bows does not speak
PRONOUN = re.compile(rf"{PREFIX}*(他们|她们|他|她|其人|我们|我|俺)(?!家|们|娘|的|两|二|佛|师|王)")
PRONOUNS = ("他们", "她们", "他", "她", "其人", "我们", "我", "俺")
HEARD = re.compile(r"[只忽又正但]?(?:[听闻]得|听见)|[只忽又但][听闻]|[只忽]见(?=[报叫喊])")
COUNTED = r"(?:那|这|[一二三四五六七八九十两几数]+[个员名位班伙群](?!个)|[早时旁]?有[个一]?|[只忽又早却但正猛果]见)"
_KIND = (
    r"(?:[天神老大小门]将|[童女孩王太老娃妃]子|[女孩老]儿|[魔丫老]头|[王皇母]后|[众老]生|夜叉|[诸乡父]老|金刚|大使|先锋|"
    r"[王神妖怪僧祖魂兽人女仙官公母婆兵鬼圣尊臣士汉翁妇师佛精魔者帝妃爷娘氏兄弟姐妹客侍卫徒猴龙叟妪童郎工匠娥姑相])"
)
_PLACE = r"(?:\w{2,3}[洞山寺庄城宫府殿国庙观])?"
STRANGER = re.compile(  # a noun phrase that opens a clause with a demonstrative, a number, "the one who …", or a plural
    rf"{PREFIX}*?(?:{COUNTED}+(?:\w{{1,4}}的)?(?P<shown>{_PLACE}[二三四五六七八九十两几]?个?[\w、]{{0,6}}?{_KIND}+)|"
    r"(?:那|[旁早时]?有)(?P<office>\w{2,3}的)(?=[急慌忙看见听闻报告])|"
    r"(?P<placed>(?:[前后旁里]边|为首)的)|"
    rf"(?P<several>(?:[二两三四五六七八九十]|第\w个)\w{{0,4}}?{_KIND}+)|"
    r"(?P<group>(?!原来|[我他她你汝吾此何])[\w、]{1,8}?(?:们|等(?=[众都俱皆齐一上见听闻急慌道]|$)))|"
    r"(?P<all>众(?:[^皆各都俱道又即便才见闻听]\w?)?))(?![的之])"
)
INTRODUCED = re.compile(rf"[一两几]个(?:\w{{1,4}}的)?(\w{{1,2}}?{_KIND})(?!\w?的)")
# an existential clause brings a person on the scene: its noun stands behind the verb and is the subject of what follows
PRESENTED = re.compile(
    r"(?:[闪走转跳撞钻拥][过出来上]|来了|惊动了?|[止只]剩)(?:那|这)?(?:\w{1,4}的)?(?:[一几]个)?"
    rf"(?P<new>[\w、]{{0,6}}?{_KIND}+)"
)
# a clause that may bring a new subject: existence, perception, "that …", "all"
OTHERS = re.compile(
    r"^[那这](?!里|边|时|等|样|般)|^\w{0,5}(?:有(?!些)|(?<![不相来])见|听|闻|惊动)|[站坐立跪]着?[一几两]|^[都俱]|齐[声来]|报道?$"
)
INDEFINITE = re.compile(r"见(?:那边|后边)?(?:有|是)?[一两几二三]个")  # who is seen for the first time is to be told of
PLURAL = re.compile(r"[众诸群]|.*(?:们|等|众|[两二三四]个)$")
LISTED = re.compile(rf"(?P<name>(?:\w{{1,4}}、)+\w{{1,4}}?){MANNER}*{VERB}$")
# writing, a saying or a verse is nobody's speech here: what bears it stands where a speaker would
WRITTEN = re.compile(
    r"(?:写|镌|刻|题|绣)(?:着|道|云|曰)$|^\w{0,6}(?:[诗偈颂词赋表诏疏帖联诀易历古]|[古俗谚]语)云?[云曰道]$|^[古常俗]\w?[云言]道?$"
    r"|[对春楹]联$|^(?:[真正]是)$"
)
NEW = re.compile(r"(?:只见|真个|忽见|忽有|早有|旁边|有|时有)?(?:[那这](?!里|边|时|等|样|般)|一个|个)")
ACTS = re.compile(r"[又便即叫教问道说喝骂笑再复却遂将把急忙捋忍哏口心念吩喊转丢放取拿拔弄扯伸摇点]")
ROLES = (
    "大王 太子 公主 皇帝 娘娘 将军 菩萨 和尚 老爷 夫人 小姐 先生 老者 老儿 妇人 女子 汉子 老汉 老妪 老妇 "
    "老翁 丞相 道士 道人 樵夫 渔翁 小厮 丫鬟 家僮 店家 差人 使者 童子 星宿 真人 大仙 二将 官人 老人 少年 "
    "青年 男人 女人 姑娘 孩子 老头 老板 医生 老师"
)
SENSED = re.compile(r"[只忽却但又正早一便果]?(?:[听闻]得?|听见|见)")
# tags of a verb alone
ANSWERS = re.compile(r"(?:道|说|曰|云|答道|应道)[：:]?")
ASKS_AGAIN = re.compile(r"又问道?[：:]?")
COMMANDS = re.compile(r"(?:教|命|令|叫|即命|即令|传令|吩咐)道?[：:]?")
SUPERIOR = re.compile(r"大王|陛下|主公|万岁")  # who says so obeys
BY = re.compile(r"\w{0,6}被(?:那|这)?")
SEEN_BY = re.compile(r"\w{0,6}被(?:那|这)?(?=\w{1,5}(?:看见|听见|听得|看破|识破|贴|捻|[喝拿扯挡拦]住))")
ALL = re.compile(r"又?(?:俱|都|齐|一齐)")
SILENT = re.compile(r"(?:不答|不言|不语|默然|无言|不应|答应不)")
